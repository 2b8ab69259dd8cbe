"""What a hostile body makes the server build: values, errors and texts are counted, for times depend on the machine."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from oar_wire.edit import EditRequest
from oar_wire.error import ServerError
from oar_wire.errors import InvalidJson, InvalidRequest
from oar_wire.openai import ImageEditBody, ImageEditFields, ImagesRequest
from oar_wire.options import MAX_POSITIONS
from oar_wire.request import GenerationRequest
from server.api.bodies import MAX_FIELDS, MAX_VALUES, parse_json, parse_object
from server.api.forms import check
from tests.server.hostile import json_bodies

MODELS = (GenerationRequest, EditRequest, ImagesRequest, ImageEditFields, ImageEditBody)
SIZE = 400_000  # enough for more values than any bound, little enough for a test
MAX_DEPTH = 200
MAX_ERRORS = 3 * MAX_FIELDS  # a union has one for each of its kinds
SHAPES = json_bodies(SIZE)


def values(value: Any) -> Iterator[Any]:
    """The value and all within it, without recursion."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        yield found
        if isinstance(found, dict):
            waiting.extend(found.values())
        elif isinstance(found, list):
            waiting.extend(found)


def built(body: bytes, model: type[BaseModel]) -> tuple[int, int]:
    """How many values were made of the body, and how many errors."""
    try:
        fields = parse_object(body)
    except ServerError:
        return 0, 1
    count = sum(1 for _ in values(fields))
    try:
        check(model, fields)
    except RequestValidationError as error:
        return count, len(error.errors())
    return count, 0


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_hostile_body_is_refused_before_much_is_built(shape: str, model: type[BaseModel]) -> None:
    num_values, num_errors = built(SHAPES[shape], model)
    assert num_values <= MAX_VALUES
    assert num_errors <= MAX_ERRORS


ATOMS = st.sampled_from(['""', "null", "{}", "[]", "1", "-1", "1e999", "true", '"\\ud83d"', "9" * 5000, '"x"', '"[,{"'])


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """An object whose fields, known ones and others, are long lists, nests and atoms, a few repeated very often."""
    names = st.sampled_from([*EditRequest.model_fields, *ImageEditBody.model_fields, "", "k", "prompt\\u0000"])
    parts: list[str] = []
    for _ in range(draw(st.integers(0, 4))):
        atom, times, depth = draw(ATOMS), draw(st.integers(0, 30_000)), draw(st.integers(0, 400))
        kind = draw(st.sampled_from(["atom", "list", "nest", "keys"]))
        if kind == "keys":
            parts += [f'"{draw(names)}{index}":{atom if len(atom) < 99 else 1}' for index in range(times // 20)]
        elif kind == "list":
            parts.append(f'"{draw(names)}":[{",".join([atom[:99]] * times)}]')
        else:
            nest = depth if kind == "nest" else 0
            parts.append(f'"{draw(names)}":{"[" * nest}{atom}{"]" * nest}')
    return f"{{{','.join(parts)}}}".encode()


@given(bodies(), st.sampled_from(MODELS))
@settings(max_examples=150, deadline=None)
def test_no_body_builds_more_than_its_bounds(body: bytes, model: type[BaseModel]) -> None:
    num_values, num_errors = built(body, model)
    assert num_values <= MAX_VALUES
    assert num_errors <= MAX_ERRORS


@given(st.recursive(st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.text(), st.lists, max_leaves=50))
def test_what_is_within_the_bounds_is_read_as_it_is(value: Any) -> None:
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_the_longest_order_fits(separators: tuple[str, str]) -> None:
    body = {"prompt": "[{,]" * 250, "order": list(range(MAX_POSITIONS))}
    encoded = json.dumps(body, separators=separators).encode()
    assert len(encoded) <= 128 << 10
    assert check(GenerationRequest, parse_object(encoded)).order == body["order"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty"),
        (b"{", "EOF"),
        (b'{"a":1,}', "trailing comma"),
        (b"{}{}", "trailing characters"),
        (b"{}\0", "trailing characters"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":-Infinity}', "Infinity"),
        (b'{"a":1,"a":2}', 'duplicate key "a"'),
        (b'{"a":' + b"9" * 5000 + b"}", "number out of range"),
        (b"[" * 300 + b"]" * 300, "recursion limit"),
        (b"[" * 100_000, "opening brackets"),
        (b'{"a":"\\ud800"}', "hex escape"),
        (b'{"a":"\xfc"}', "UTF-8"),
        ('{"a":1}'.encode("utf-16"), "UTF-8"),
    ],
)
def test_the_sentence_says_what_is_wrong(body: bytes, reason: str) -> None:
    with pytest.raises(InvalidJson) as refusal:
        parse_object(body)
    assert reason in refusal.value.message


def test_a_byte_order_mark_is_no_fault() -> None:
    assert parse_object(b'\xef\xbb\xbf{"a":1}') == {"a": 1}


def test_too_many_fields_are_counted_and_not_listed() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parse_object(json.dumps({f"k{index}": 1 for index in range(MAX_FIELDS + 1)}).encode())
    assert refusal.value.code == "invalid_request"


@pytest.mark.parametrize("text", ["an\0orc", "\0"])
def test_a_nul_is_no_text(text: str) -> None:
    with pytest.raises(RequestValidationError) as refusal:
        check(GenerationRequest, {"prompt": text})
    assert refusal.value.errors()[0]["loc"] == ("body", "prompt")
