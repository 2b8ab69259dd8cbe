"""An error is one class of `oar_wire/errors.py`: answers, exceptions, exit codes and documents follow from it."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from oar_cli.failure import CommandFailed
from oar_client.errors import Conflict, NotFound, OarError, Overloaded, Unauthorized, refusal
from oar_wire import errors
from oar_wire.error import ServerError, all_errors
from oar_wire.errors import FIELD_CODE, InvalidField, InvalidOrder, JobFailure, find_error, restore
from oar_wire.job import Failure
from server.api.codes import error_codes
from server.api.faults import respond

ROOT = Path(__file__).parents[2]
KINDS = list(all_errors())
OWN = ROOT / "oar_wire" / "errors.py"

# A new error, before any of the server is imported.
ADD = """
from oar_wire import errors
from oar_wire.error import Example, RETRY_EXIT

class TooManyStars(errors.QueueFull):
    code = "too_many_stars"
    close_code = 4429
    meaning = "The sky is full."
    example = Example("12 stars shine already", "stars")
    places = ("submits", "websockets")
"""
LOOK = """
import json
from click import ClickException
from oar_client.errors import refusal
from ops.documents import TABLES, studio_errors
from server.api import asyncapi
from server.api.app import create_app
from server.api.faults import respond
from oar_cli.failure import CommandFailed
from server.settings import Settings

answer = respond(TooManyStars("13 stars shine", retry_after=3), "/v1/generations")
caught = refusal(answer.status_code, json.loads(answer.body)["error"])
app = create_app(Settings()).openapi()
submit = app["paths"]["/v1/generations"]["post"]["responses"]["429"]
print(json.dumps({
    "answer": [answer.status_code, answer.headers["retry-after"], json.loads(answer.body)],
    "client": [type(caught).__name__, caught.code, str(caught), caught.kind is TooManyStars],
    "exit": CommandFailed(caught).exit_code,
    "openapi": submit["content"]["application/json"]["examples"].get("too_many_stars"),
    "codes": [entry for entry in app["x-error-codes"] if entry["code"] == "too_many_stars"],
    "table": TABLES["errors"](),
    "closes": TABLES["close codes"](),
    "asyncapi": "too_many_stars" in json.dumps(asyncapi.document("1")),
    "studio": studio_errors(),
}))
"""


@cache
def told() -> dict[str, Any]:
    """What an API process and a client make of the new error."""
    words = [sys.executable, "-W", "error", "-c", ADD + LOOK]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_new_class_is_an_answer() -> None:
    error = {"code": "too_many_stars", "message": "13 stars shine", "field": None, "type": "rate_limit_error"}
    assert told()["answer"] == [429, "3", {"error": error}]


def test_a_new_class_is_an_exception_of_the_client_and_an_exit_code() -> None:
    assert told()["client"] == ["Overloaded", "too_many_stars", "13 stars shine", True]
    assert told()["exit"] == 75


def test_a_new_class_is_in_every_document() -> None:
    example = told()["openapi"]
    assert example["summary"] == example["value"]["error"]["message"] == "12 stars shine already"
    assert example["value"]["error"]["field"] == "stars"
    assert [entry["meaning"] for entry in told()["codes"]] == ["The sky is full."]
    assert "| 429 | `too_many_stars` | The sky is full. |" in told()["table"]
    assert "| `4429` | After an error frame: too_many_stars |" in told()["closes"]
    assert told()["asyncapi"]
    assert 'TooManyStars: "too_many_stars",' in told()["studio"]


# the classes there are


def test_every_code_has_one_class() -> None:
    codes = [kind.code for kind in KINDS]
    assert len(set(codes)) == len(codes)
    assert all(find_error(kind.code) is kind for kind in KINDS)
    assert find_error("invalid_size") is InvalidField
    assert find_error("of_a_later_version") is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_is_whole(kind: type[ServerError]) -> None:
    example = kind.make_example()
    assert example.message == kind.example.message
    assert not example.message.endswith(".")
    assert kind.meaning.endswith(".") or kind.meaning.endswith(".)")
    assert (example.retry_after is not None) == kind.is_retried
    assert 400 <= kind.status < 600


@pytest.mark.parametrize("kind", KINDS)
def test_the_client_raises_what_the_server_raised(kind: type[ServerError]) -> None:
    for path in ("/v1/generations", "/v1/images/generations"):
        answer = respond(kind.make_example(), path)
        caught = refusal(answer.status_code, json.loads(bytes(answer.body))["error"])
        assert (caught.code, caught.message, caught.field) == (kind.code, kind.example.message, kind.example.field)
        assert caught.kind is kind
        assert CommandFailed(caught).exit_code == CommandFailed(kind.make_example()).exit_code == kind.exit_code


def test_kinds_of_the_client_by_status() -> None:
    kinds = {401: Unauthorized, 403: Unauthorized, 404: NotFound, 409: Conflict, 410: NotFound, 429: Overloaded,
             503: Overloaded, 504: Overloaded}  # fmt: skip
    for kind in KINDS:
        if kind.status in kinds:
            assert type(refusal(kind.status, kind.make_example().to_json()["error"])) is kinds[kind.status]


def test_an_unknown_code_keeps_its_exit_code_by_its_status() -> None:
    later = {"code": "of_a_later_version", "message": "wait"}
    assert [refusal(status, later).exit_code for status in (400, 403, 429, 500, 503)] == [1, 77, 75, 1, 75]
    assert CommandFailed(OarError("odd")).exit_code == 1


def test_a_failure_of_a_job_is_its_error_again() -> None:
    for error in (errors.DeadlineExceeded(), InvalidOrder("no such order", field="order"),
                  InvalidField("too large", field="size")):  # fmt: skip
        failure = Failure.of(error)
        again = restore(failure.code, failure.message, failure.field)
        assert type(again) is type(error)
        assert again.to_json() == error.to_json()
    later = restore("of_a_later_version", "it broke", None)
    assert (type(later), later.code, later.status) == (JobFailure, "of_a_later_version", 500)


# codes are spelled in their classes alone


def spelled() -> Iterator[str]:
    """Places of the source with a code as a literal."""
    codes = {error.code for error in error_codes()} | {kind.code for kind in KINDS}
    for folder in ("oar_cli", "oar_client", "oar_core", "oar_lab", "oar_wire", "ops", "server"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path == OWN:
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
                if is_text and (node.value in codes or node.value.startswith(FIELD_CODE)):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}: {node.value}"
    for path in sorted((ROOT / "server" / "web" / "studio").glob("*.js")):
        if path.name != "errors.js":
            found = codes & set(re.findall(r"\w+", path.read_text(encoding="utf-8")))
            yield from (f"{path.relative_to(ROOT)}: {code}" for code in sorted(found))
    for path in sorted((ROOT / "server").rglob("*.lua")):
        found = codes & set(re.findall(r"['\"](\w+)['\"]", path.read_text(encoding="utf-8")))
        yield from (f"{path.relative_to(ROOT)}: {code}" for code in sorted(found))


def test_no_code_is_spelled_outside_its_class() -> None:
    assert list(spelled()) == []


def test_a_code_in_its_class_is_found() -> None:
    """The search above would find it elsewhere."""
    codes = [
        node.value for node in ast.walk(ast.parse(OWN.read_text(encoding="utf-8"))) if isinstance(node, ast.Constant)
    ]
    assert {kind.code for kind in KINDS} <= set(codes)
