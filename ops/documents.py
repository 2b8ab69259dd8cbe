"""Writes the API's documents, the client's types and the generated tables of docs/: `make documents`.

`docs/openapi.json`, `docs/asyncapi.json`, `oar_client/options.py`, `oar_client/client.py`,
`server/web/studio/errors.js`, and whatever stands in docs/*.md between `<!-- generated: NAME -->` and `<!-- end -->`.
With `--record` it first makes the events' examples again, from a server of its own.
"""

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
import httpx
from websockets.sync.client import connect

from oar_lab.bench.server.own_server import own_server
from oar_lab.eval.markdown import markdown_table
from oar_wire.edit import EditSettings
from oar_wire.error import all_errors
from oar_wire.errors import FIELD_CODE, OF_A_FIELD, InvalidField
from oar_wire.events import Event
from oar_wire.request import GenerationRequest
from oar_wire.version import VERSION
from ops import client_options, client_twin
from server.api import asyncapi
from server.api.app import create_app
from server.api.codes import close_codes, error_codes
from server.settings import Settings, environment_name

DOCS = Path("docs")
STUDIO_ERRORS = Path("server/web/studio/errors.js")
CLIENT_OPTIONS = Path("oar_client/options.py")
CLIENT = Path("oar_client/client.py")
EXAMPLES = Path("server/api") / asyncapi.EXAMPLES
GENERATED = re.compile(r"(<!-- generated: ([\w -]+) -->\n)(.*?)(<!-- end -->)", re.S)
PROMPT = "a person with short red hair, brown shirt and blue trousers, walking, seen from the front"


@click.command()
@click.option("--record", is_flag=True, help="Record the examples of events again, from a run.")
@click.option("--weights", type=click.Path(path_type=Path, file_okay=False), default=Path("weights"))
def write_documents(record: bool, weights: Path) -> None:
    """Write docs/openapi.json, docs/asyncapi.json and the generated tables."""
    if record:
        settings = {"OAR_WEIGHTS_DIR": str(weights), "OAR_LEASE_SECONDS": "2", "OAR_PREVIEW_INTERVAL": "0.02"}
        with own_server(settings) as server:
            known = json.loads(EXAMPLES.read_text(encoding="utf-8"))  # of models that are not shipped, too
            EXAMPLES.write_text(_json(known | record_examples(server.url, server.processes.pid)), encoding="utf-8")
    for path, text in build_documents().items():
        path.write_text(text, encoding="utf-8")
        click.echo(path)


def build_documents() -> dict[Path, str]:
    """Every generated file with its text."""
    files = {
        DOCS / "openapi.json": _json(create_app(Settings()).openapi()),
        DOCS / "asyncapi.json": _json(asyncapi.document(VERSION)),
        CLIENT_OPTIONS: client_options.options_source(),
        CLIENT: client_twin.twin_source(),
        STUDIO_ERRORS: studio_errors(),
    }
    return files | {path: fill_tables(path.read_text(encoding="utf-8")) for path in sorted(DOCS.glob("*.md"))}


def fill_tables(text: str) -> str:
    """The Markdown with its generated parts written again. Raises KeyError for an unknown part."""
    return GENERATED.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n\n{found[4]}", text)


def _json(document: Any) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def studio_errors() -> str:
    """The codes by the names of their classes, for the studio's scripts."""
    lines = "".join(f'  {kind.__name__}: "{kind.code}",\n' for kind in all_errors())
    return f"/** Error codes. Generated: `make documents`. */\n\nexport const ErrorCode = {{\n{lines}}};\n"


# tables


def errors_table() -> str:
    """Codes of fields share a line."""
    codes = error_codes()
    fields = [error for error in codes if error.meaning == OF_A_FIELD]
    rows = [(str(error.status), f"`{error.code}`", error.meaning) for error in codes if error not in fields]
    several = [
        f"`{error.code}` ({error.field})" for error in fields if error.code != InvalidField.code_of(error.field or "")
    ]
    names = f"`{FIELD_CODE}` and the field's name, or {', '.join(several)}"
    return markdown_table(("status", "code", "meaning"), rows) + f"\n\n{OF_A_FIELD} 422: {names}."


def closes_table() -> str:
    return markdown_table(("code", "why"), [(f"`{code}`", text) for code, text in close_codes().items()])


def events_table() -> str:
    """Each event's own fields; all have `type`, `seq`, `job_id` and `at`."""
    messages = asyncapi.document(VERSION)["components"]["messages"]
    rows: list[tuple[str, ...]] = []
    for kind in get_args(Event):
        name = kind.model_fields["type"].default
        own = [f"`{field}`" for field in kind.model_fields if field not in {"type", "seq", "job_id", "at"}]
        rows.append((f"`{name}`", ", ".join(own), messages[name]["summary"]))
    return markdown_table(("type", "fields", "meaning"), rows)


def fields_table(*models: Any) -> str:
    rows: list[tuple[str, ...]] = []
    for name, field in {name: field for model in models for name, field in model.model_fields.items()}.items():
        facts = {key: getattr(fact, key) for fact in field.metadata for key in ("ge", "gt", "le") if hasattr(fact, key)}
        signs = {"ge": "≥", "gt": ">", "le": "≤"}
        bounds = ", ".join(f"{signs[key]} {value:g}" for key, value in facts.items() if abs(value) < 1 << 30)
        given = "" if field.is_required() or field.default is None else f"`{json.dumps(field.default)}`"
        default = "required" if field.is_required() else given
        rows.append((f"`{name}`", default, bounds, field.description or ""))
    return markdown_table(("field", "default", "bounds", "meaning"), rows)


def settings_table() -> str:
    rows: list[tuple[str, ...]] = []
    for name, field in Settings.model_fields.items():
        default = ",".join(field.default) if isinstance(field.default, tuple) else field.default
        shown = json.dumps(default) if isinstance(default, bool) else str(default)
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        meaning = "; ".join([field.description or "", *([", ".join(choices)] if choices else [])])
        rows.append((f"`{environment_name(name)}`", "" if default in (None, "") else f"`{shown}`", meaning))
    return markdown_table(("setting", "default", "meaning"), rows)


def routes_table() -> str:
    paths = create_app(Settings()).openapi()["paths"]
    rows = [
        (f"`{method.upper()} {path}`", operation["summary"])
        for path, methods in paths.items()
        for method, operation in methods.items()
    ]
    return markdown_table(("route", "purpose"), [*rows, ("`WS /v1/generations/{job_id}/stream`", "Follow a job")])


def teaching_table() -> str:
    from oar_core.train.recipes import IMPORTED, find_recipe
    from oar_lab.training_cost import Machine, cost_table, taught_cost, usual_backbones

    costs = [taught_cost(key, network, find_recipe(IMPORTED), Machine()) for key, network in usual_backbones().items()]
    return cost_table(costs)


def recipes_table() -> str:
    from oar_core.train.recipes import own_recipes
    from oar_lab.recipe_facts import MEASURED_ON, facts_table, recipe_facts

    return f"{facts_table([recipe_facts(recipe) for recipe in own_recipes()])}\n\n{MEASURED_ON}"


TABLES: dict[str, Callable[[], str]] = {
    "errors": errors_table,
    "close codes": closes_table,
    "events": events_table,
    "request fields": lambda: fields_table(GenerationRequest),
    "edit fields": lambda: fields_table(EditSettings),
    "settings": settings_table,
    "routes": routes_table,
    "recipes": recipes_table,
    "cost of teaching": teaching_table,
}


# examples


def record_examples(url: str, pid: int) -> dict[str, list[dict[str, Any]]]:
    """One or two of each kind of event, as `oar serve` at `url` sent them. `pid` is its own; its worker is killed."""
    found: dict[str, list[dict[str, Any]]] = {}
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        whole = _events(url, _submit(client, steps=8, seed=7))
        canceled = _submit(client, steps=64, n=8)
        client.delete(f"/v1/generations/{canceled}")
        failed = _submit(client, steps=64, n=16, order="confidence", deadline=0.3)
        streams = [
            whole,
            _events(url, canceled),
            _events(url, failed),
            _restarted(client, url, pid),
            _partials(client, url),
            [event for event in _events(url, _submit(client, steps=8, seed=7, revise=6)) if event["type"] == "revised"],
        ]
    for event in (event for events in streams for event in events):
        kept = found.setdefault(event["type"], [])
        if len(kept) < (2 if event["type"] == "patches" else 1):
            kept.append(event)
    with connect(url.replace("http", "ws") + "/v1/generations/gen-0/stream", proxy=None) as socket:
        found[asyncapi.STREAM_ERROR] = [json.loads(socket.recv())]
    return found


def _submit(client: httpx.Client, **changes: Any) -> str:
    return client.post("/v1/generations", json={"prompt": PROMPT, **changes}).raise_for_status().json()["id"]


def _events(url: str, job_id: str) -> list[dict[str, Any]]:
    with connect(f"{url.replace('http', 'ws')}/v1/generations/{job_id}/stream?after=0", proxy=None) as socket:
        return [json.loads(frame) for frame in socket]


def _restarted(client: httpx.Client, url: str, pid: int) -> list[dict[str, Any]]:
    """A job whose worker is killed half-way."""
    job_id = _submit(client, steps=64, n=4, order="confidence", seed=7)
    with connect(f"{url.replace('http', 'ws')}/v1/generations/{job_id}/stream?after=0", proxy=None) as socket:
        events: list[dict[str, Any]] = []
        for frame in socket:
            events.append(json.loads(frame))
            if len(events) == 12:
                os.kill(_worker_of(pid), signal.SIGKILL)
    return events


def _worker_of(pid: int) -> int:
    """The worker that this `oar serve` started."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().decode().split("\0")
            parent = int((path / "stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if "worker" in words and "oar_cli" in words and parent == pid:
            return int(path.name)
    raise click.ClickException("our server has no worker")


def _partials(client: httpx.Client, url: str) -> list[dict[str, Any]]:
    body = {"prompt": PROMPT, "stream": True, "partial_images": 1, "seed": 7}
    answer = client.post("/v1/images/generations", json=body).raise_for_status().text
    job_id = re.search(r'"job_id":"([\w-]+)"', answer)
    return _events(url, job_id[1]) if job_id else []


if __name__ == "__main__":
    write_documents()
