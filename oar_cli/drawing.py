"""The shared part of `oar generate` and `oar edit`: options and output."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from oar_cli.answer import writes
from oar_cli.failure import CommandFailed
from oar_cli.flags import flag
from oar_cli.following import Bar, Interrupted, PaintedView, View, follow_job
from oar_cli.job_handle import EditUpload, JobHandle, OnServer
from oar_cli.painting import UPPER_HALF, Colours, Ground, choose_colours
from oar_cli.request_options import make_request, read_like, read_order
from oar_client import AnyEvent, OarError
from oar_wire.edit import EditFields
from oar_wire.error import ServerError
from oar_wire.openai import OutputFormat
from oar_wire.options import OPTIONS, Option
from oar_wire.request import GenerationRequest

R = TypeVar("R", bound=GenerationRequest)

INTERRUPTED = 130
FORMATS: dict[str, OutputFormat] = {".png": "png", ".webp": "webp", ".jpg": "jpeg", ".jpeg": "jpeg"}


def _as_list(_context: click.Context, _option: click.Parameter, values: tuple[float, ...] | None) -> list[float] | None:
    """Converts to what JSON has."""
    return None if values is None else list(values)


# How this command line writes what others write as JSON.
_CHANGES: dict[str, dict[str, Any]] = {
    "order": {"type": read_order, "metavar": "ORDER", "help": f"{OPTIONS['order'].about.sentence}, as 3,0,1,2."},
    "group_sizes": {"type": read_order, "metavar": "SIZES"},
    "deadline": {"metavar": "SECONDS"},
}


def _pair(option: Option) -> dict[str, Any]:
    return {"callback": _as_list} if option.is_pair else {}


_OPTIONS = (
    click.option(
        "-o",
        "--out",
        type=click.Path(path_type=Path, dir_okay=False),
        default=Path("out.png"),
        show_default=True,
        help="PNG, or by its suffix .webp, .jpg; {seed} and {index} in the name are filled in, "
        "and without {index} several pictures get theirs at its end.",
    ),
    click.option(
        "--url", envvar="OAR_URL", show_envvar=True, help="A server; without it the model runs in this process."
    ),
    click.option("--api-key", envvar="OAR_API_KEY", show_envvar=True, help="For a server that asks for one."),
    click.option(
        "--like",
        type=read_like,
        metavar="FILE",
        help="A picture painted here, or a request as JSON: fills in what is not said.",
    ),
    click.option("--model", help="The default model if absent."),
    click.option("-n", "--n", type=int, help="How many pictures; 1 if absent."),
    *(flag(option, **_CHANGES.get(option.name, {}), **_pair(option)) for option in OPTIONS.values()),
    click.option("--idempotency-key", metavar="KEY", help="Makes one job of repeated commands, on a server."),
    click.option(
        "--paint",
        type=click.Choice(["auto", "24bit", "256", "never"]),
        default="auto",
        show_default=True,
        help="Colours of the pictures in the terminal; auto heeds TERM, COLORTERM and NO_COLOR.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object when all is done, and nothing else."),
    click.option("--events", "as_events", is_flag=True, help="Print the job's events as they come, one JSON a line."),
)
_NOT_OF_THE_REQUEST = ("out", "url", "api_key", "idempotency_key", "like", "paint", "as_json", "as_events")


def with_drawing_options(command: Callable[..., None]) -> Callable[..., None]:
    decorated = command
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def draw_job(kind: type[R], values: dict[str, Any], upload: EditUpload | None = None) -> None:
    """`values` are those of the options, and the request's other fields. Ends with 130 where it is interrupted."""
    out, url, api_key, key, like, paint, as_json, as_events = (values.pop(name) for name in _NOT_OF_THE_REQUEST)
    if key is not None and not url:
        raise click.UsageError("--idempotency-key is a promise of a server: name one with --url")
    if as_json and as_events:
        raise click.UsageError("--json prints one object, --events many: choose one")
    _check_target(out)
    colours = None if as_json or as_events else _colours(paint)
    try:
        request = make_request(kind, values, like or {}, previews=colours is not None or as_events)
        with contextlib.closing(_begin(url, api_key, request, upload, key)) as job:
            painting = None if colours is None else PaintedView(job, colours, _write, _ground(job, request, upload))
            _draw(job, out, painting, as_json=as_json, as_events=as_events)
    except Interrupted:
        click.echo("canceled", err=True)
        raise SystemExit(INTERRUPTED) from None
    except (OarError, ServerError) as error:
        raise CommandFailed(error) from error


def _ground(job: JobHandle, request: GenerationRequest, upload: EditUpload | None) -> Ground | None:
    edit = job.params.edit
    if upload is None or edit is None or not isinstance(request, EditFields):
        return None
    return Ground.of(upload.image, upload.mask, request.offset, job.shape.image_size, edit.num_kept)


def _draw(job: JobHandle, out: Path, painting: PaintedView | None, *, as_json: bool, as_events: bool) -> None:
    start = time.monotonic()
    click.echo(f"seed {job.params.seed}", err=True)
    for warning in job.warnings:
        click.echo(f"warning: {warning}", err=True)
    drawn = job.params.drawn_class
    if drawn is not None and not drawn.is_exact:
        click.echo(f"warning: no class has that name; this is the nearest, {drawn.name!r}", err=True)
    view: View = painting or Bar()
    first: list[float] = []

    def tell(event: AnyEvent) -> None:
        if event.type == "patches" and not first:
            first.append(time.monotonic() - start)
        if as_events:
            click.echo(event.model_dump_json())

    follow_job(job, view, tell)
    pictures = job.pictures(FORMATS.get(out.suffix.lower(), "png"))
    seconds = time.monotonic() - start
    paths = name_files(out, job.params.seed, len(pictures))
    for path, picture in zip(paths, pictures):
        _save(path, picture)
    if painting is not None:
        painting.leave(pictures)
    if as_json:
        click.echo(json.dumps(_summary(job, paths, first[0] if first else None, seconds)))
    elif not as_events:
        for path in paths:
            click.echo(path)


def name_files(out: Path, seed: int, count: int) -> list[Path]:
    """The files of `count` pictures."""
    name = out.name.replace("{seed}", str(seed))
    if "{index}" not in name and count > 1:
        name = f"{Path(name).stem}-{{index}}{out.suffix}"
    return [out.with_name(name.replace("{index}", str(index))) for index in range(count)]


def _check_target(out: Path) -> None:
    """Before a picture is made that could not be kept."""
    suffix = out.suffix.lower()
    if suffix and suffix not in FORMATS:
        raise click.UsageError(f"{out.name}: pictures are written as {', '.join(FORMATS)}")
    folder = out.parent
    if not folder.is_dir():
        raise click.ClickException(f"{folder} is no folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise click.ClickException(f"{folder} takes no files")


def _save(path: Path, picture: bytes) -> None:
    try:
        path.write_bytes(picture)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from error


def _summary(job: JobHandle, paths: list[Path], first: float | None, seconds: float) -> dict[str, Any]:
    """`first_patch` and `total` are seconds from the request; the other times are the server's, in Unix seconds."""
    measured = {"first_patch": None if first is None else round(first, 3), "total": round(seconds, 3)}
    return {
        "job_id": job.id,
        "seed": job.params.seed,
        "files": [str(path) for path in paths],
        "warnings": list(job.warnings),
        "timings": {**job.timings().model_dump(), **measured},
        "params": job.params.model_dump(mode="json", exclude_none=True),
    }


def _colours(paint: str) -> Colours | None:
    if paint == "24bit" or paint == "256":
        return paint
    can_paint = sys.stdout.isatty() and writes(UPPER_HALF)
    return None if paint == "never" else choose_colours(os.environ, is_terminal=can_paint)


def _write(text: str) -> None:
    click.echo(text, nl=False, color=True)


def _begin(
    url: str | None, api_key: str | None, request: GenerationRequest, upload: EditUpload | None, key: str | None
) -> JobHandle:
    """`key` is for idempotency, on a server. Raises OarError, click.ClickException."""
    if url:
        return OnServer(url, api_key, request, upload, key)
    # Torch takes seconds to load, and a client of a server needs none.
    from oar_cli.in_process import InProcess

    return InProcess(request, upload)
