"""openapi.json, asyncapi.json and the generated tables are what the code says, and examples are what it sends."""

import json
import re
from pathlib import Path
from typing import Any, get_args

import jsonschema_rs
import pytest
from fastapi.testclient import TestClient

from oar_wire.events import EVENTS, TERMINAL_TYPES, Event
from oar_wire.version import VERSION
from ops.documents import GENERATED, TABLES, build_documents
from server.api import asyncapi
from server.api.app import create_app
from server.api.codes import close_codes, error_codes
from server.settings import Settings
from tests.surface.asyncapi import Document

ROOT = Path(__file__).parents[2]
OPENAPI = create_app(Settings()).openapi()
ASYNCAPI = asyncapi.document(VERSION)
MESSAGES: dict[str, Any] = ASYNCAPI["components"]["messages"]
OPERATIONS = [(path, method) for path, methods in OPENAPI["paths"].items() for method in methods]


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_what_is_written_is_what_the_code_says() -> None:
    stale = [str(path) for path, text in build_documents().items() if path.read_text() != text]
    assert not stale, f"run `make documents`: {', '.join(stale)}"


def test_every_generated_part_is_made_by_somebody_and_every_table_is_shown() -> None:
    text = "\n".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
    assert {name for _, name, _, _ in GENERATED.findall(text)} == set(TABLES)


# openapi


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_operation_says_what_it_is_for(path: str, method: str) -> None:
    operation = OPENAPI["paths"][path][method]
    route = operation["operationId"].split("_", 1)[1]
    assert operation["summary"] != route.replace("_", " ").title(), "FastAPI made it from the function's name"
    assert " " in operation["summary"]


def test_operations_have_names_that_a_generated_client_can_use() -> None:
    names = [OPENAPI["paths"][path][method]["operationId"] for path, method in OPERATIONS]
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() for name in names)


def test_every_code_of_an_example_is_in_the_table() -> None:
    known = {(error.code, error.status) for error in error_codes()}
    for path, method in OPERATIONS:
        for status, reply in OPENAPI["paths"][path][method]["responses"].items():
            for code in reply.get("content", {}).get("application/json", {}).get("examples", {}):
                # What is 422 elsewhere is 400 to OpenAI's clients.
                as_told = (
                    {(code, int(status)), (code, 422)}
                    if status == "400" and "images" in path
                    else {(code, int(status))}
                )
                assert as_told & known


# codes


def test_every_code_is_there_once_and_has_a_meaning() -> None:
    codes = [error.code for error in error_codes()]
    assert len(set(codes)) == len(codes)
    assert [error.code for error in error_codes() if not error.meaning] == []


def test_close_codes_are_told_with_their_errors() -> None:
    codes = close_codes()
    assert codes.keys() == {"1000", "1011", "1013", "4400", "4401", "4404", "4410"}
    assert "slow_client" in codes["1013"]
    assert codes["4410"].endswith("job_expired, job_lost")


# asyncapi


def test_the_document_is_asyncapi() -> None:
    Document.model_validate(ASYNCAPI)
    with pytest.raises(ValueError, match="unknown fields"):
        Document.model_validate({**ASYNCAPI, "channel": {}})


def test_every_reference_leads_somewhere() -> None:
    for target in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(ASYNCAPI)):
        found: Any = ASYNCAPI
        for part in target.split("/"):
            found = found[part]
        assert found


def test_every_event_is_a_message_of_both_channels() -> None:
    types = {kind.model_fields["type"].default for kind in get_args(Event)}
    for name, error in (("stream", "streamError"), ("events", "eventsError")):
        channel = ASYNCAPI["channels"][name]
        assert set(channel["messages"]) == types | {error}
        operation = ASYNCAPI["operations"]["send" + name.title()]
        assert {ref["$ref"].rsplit("/", 1)[1] for ref in operation["messages"]} == set(channel["messages"])
    assert {name for name in types if "It is the last event" in MESSAGES[name]["summary"]} == TERMINAL_TYPES


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_examples_are_events_as_the_schema_has_them(name: str) -> None:
    """They were recorded from a run: what the schema forbids would be a mistake of the schema."""
    message = MESSAGES[name]
    schema = {**message["payload"], "components": ASYNCAPI["components"]}
    validator = jsonschema_rs.Draft202012Validator(schema)
    assert message["examples"] or name == "eventsError"
    for example in message["examples"]:
        validator.validate(example["payload"])
        if name in EVENTS_NAMES:
            assert EVENTS.validate_python(example["payload"]).type == name
            for field in example["payload"].keys() - {"type"}:
                spoilt = {key: value for key, value in example["payload"].items() if key != field}
                assert not validator.is_valid(spoilt), f"{field} is always sent"


EVENTS_NAMES = {kind.model_fields["type"].default for kind in get_args(Event)}


def test_it_is_served() -> None:
    client = TestClient(create_app(Settings()), base_url="http://localhost:8000")
    assert client.get("/asyncapi.json").json() == json.loads((ROOT / "docs" / "asyncapi.json").read_text())
