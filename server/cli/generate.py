"""`oar generate`: pictures from a prompt, in this process or on a server, with a progress bar."""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit, urlunsplit

import click
import httpx
from pydantic import ValidationError
from tqdm import tqdm
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from server.cli.options import load_settings
from server.errors import ServerError
from server.schemas.generation import GenerationParams, GenerationRequest

TIMEOUT = 30.0
MAX_RECONNECTS = 8


@click.command()
@click.argument("prompt")
@click.option("-o", "--out", type=click.Path(path_type=Path, dir_okay=False), default=Path("out.png"), help="PNG file.")
@click.option("--url", help="A server; without it the model runs in this process.")
@click.option("--model", help="The default model if absent.")
@click.option("--seed", type=int, help="Decides every draw; chosen if absent.")
@click.option("-n", "--n", type=int, default=1, help="Images; with several, their index is put into the file's name.")
@click.option("--order", help="Name of the order in which the grid is decoded.")
@click.option("--steps", type=int, help="Decode steps.")
@click.option("--group-sizes", help="cosine, linear, constant or adaptive.")
@click.option("--entropy-bound", type=float, help="Nats that an adaptive group may lose.")
@click.option("--guidance", type=float, help="Classifier-free guidance; 1 is none.")
@click.option("--temperature", type=float)
@click.option("--top-k", type=int)
@click.option("--top-p", type=float)
def generate(out: Path, url: str | None, **fields: Any) -> None:
    """Make pictures of PROMPT."""
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        request = GenerationRequest(**given, previews=False)
        pngs = _on_server(url, request) if url else _in_process(request)
    except ValidationError as error:
        raise click.UsageError("; ".join(f"{fault['loc'][0]}: {fault['msg']}" for fault in error.errors())) from error
    except (ServerError, httpx.HTTPError) as error:
        raise click.ClickException(str(error)) from error
    for index, png in enumerate(pngs):
        path = out if len(pngs) == 1 else out.with_stem(f"{out.stem}-{index}")
        path.write_bytes(png)
        click.echo(path)


def _on_server(url: str, request: GenerationRequest) -> list[bytes]:
    with httpx.Client(base_url=url, timeout=TIMEOUT) as client:
        answer = client.post("/v1/generations", json=request.model_dump(exclude_none=True))
        if answer.is_error:
            raise click.ClickException(_sentence(answer))
        accepted: dict[str, Any] = answer.json()
        click.echo(f"seed {accepted['seed']}", err=True)
        _follow(urljoin(url, accepted["stream_url"]))
        images: list[dict[str, Any]] = client.get(accepted["url"]).raise_for_status().json()["images"]
        return [client.get(image["url"]).raise_for_status().content for image in images]


def _follow(stream_url: str) -> None:
    """Until the terminal event; a broken connection is opened again where it broke."""
    address = urlsplit(stream_url)
    socket_url = urlunsplit(address._replace(scheme="wss" if address.scheme == "https" else "ws"))
    seq, steps = 0, Counter[int]()
    with tqdm(unit="step", leave=False) as bar:
        for attempt in range(MAX_RECONNECTS):
            time.sleep(attempt)
            try:
                with connect(f"{socket_url}?after={seq}", open_timeout=TIMEOUT) as socket:
                    for text in socket:
                        event: dict[str, Any] = json.loads(text)
                        _check(event)
                        seq = event["seq"]
                        if event["type"] == "patches":
                            steps[event["image"]] = event["step"]
                            bar.total = event["steps"] * len(steps)
                            bar.update(steps.total() - bar.n)
                        if event["type"] == "completed":
                            return
            except (ConnectionClosed, OSError):
                continue
    raise click.ClickException("the connection broke too often")


def _check(event: dict[str, Any]) -> None:
    if "error" in event:
        raise click.ClickException(event["error"]["message"])
    if event["type"] == "canceled":
        raise click.ClickException("the job was canceled")


def _sentence(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError):
        return f"{answer.request.url} answered {answer.status_code}"


def _in_process(request: GenerationRequest) -> list[bytes]:
    from oar_core.engine.events import PatchesDecoded, SequenceFinished
    from oar_core.engine.sequence import KnownTokens
    from oar_core.errors import OarError
    from server.api.pictures import Rendition, recipe, render
    from server.api.validation import resolve
    from server.worker.models import load_models
    from server.worker.preview import render_pngs
    from server.worker.running import sequence_request

    settings = load_settings({"models": (request.model,)} if request.model else {})
    try:
        (model, *_) = load_models(settings)
        params: GenerationParams = resolve(request, model.info(), settings)
        click.echo(f"seed {params.seed}", err=True)
        ids = model.pipeline.encode_prompt(params.prompt)
        for image in range(params.n):
            model.engine.add(sequence_request(params, ids, str(image), image, KnownTokens()))
    except OarError as error:
        raise click.ClickException(str(error)) from error
    finished: dict[int, tuple[int, ...]] = {}
    with tqdm(total=params.n * params.steps, unit="step", leave=False) as bar:
        while model.engine.has_work:
            events = model.engine.step()
            bar.update(sum(isinstance(event, PatchesDecoded) for event in events))
            finished |= {
                int(event.sequence_id): event.token_ids for event in events if isinstance(event, SequenceFinished)
            }
    pngs = render_pngs(model.pipeline, [finished[image] for image in range(params.n)])
    return [render(png, Rendition(), recipe(params, image)) for image, png in enumerate(pngs)]
