"""Multipart bodies: what a hostile one makes the server keep is counted, and what is wrong is said in a sentence."""

import asyncio
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Message

from oar_wire.edit import EditFields
from oar_wire.errors import InvalidRequest
from server.api.forms import MAX_FILES, MAX_TEXTS, Form, read_form
from tests.server.hostile import FORM_TYPE, file, form, form_bodies, text

SIZE = 15_000  # parsed where it is read, without the server's threads
LIMIT = 4_000
SHAPES = form_bodies(SIZE)


def read(body: bytes, content_type: str = FORM_TYPE) -> Form:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    scope: dict[str, Any] = {"type": "http", "headers": [(b"content-type", content_type.encode())]}
    return asyncio.run(read_form(Request(scope, receive), EditFields, LIMIT))


def refused(body: bytes, content_type: str = FORM_TYPE) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refusal:
        read(body, content_type)
    return refusal.value


@pytest.mark.parametrize("shape", SHAPES)
def test_a_hostile_form_is_refused_or_bounded(shape: str) -> None:
    try:
        found = read(SHAPES[shape])
    except InvalidRequest:
        return
    assert len(found.fields) <= 64
    assert sum(len(upload.data) for upload in (*found.images, *found.masks)) <= SIZE


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (form(text(b"prompt", b"x"), text(b"prompt", b"y")), "'prompt' is there twice"),
        (form(text(b"n", b"1"), text(b"n[]", b"2")), "'n' is there twice"),
        (form(text(b"prompt", b"\xff")), "no UTF-8"),
        (form(text(b"\xff", b"x")), "no UTF-8"),
        (form(text(b"prompt", b"x" * (LIMIT + 1))), "longer than 4000 bytes"),
        (form(*[text(b"f%d" % index, b"") for index in range(65)]), "more than 64 fields"),
        (form(*[file(b"")] * (MAX_FILES + 1)), "more than 17 files"),
        (b"--x" * (MAX_TEXTS + MAX_FILES + 2), "more than 2048 fields"),
        (form(file(b"x")).removesuffix(b"--x--\r\n"), "ends before"),
        (form(b"a:b\r\n" * 9 + b"\r\n"), "header count"),
        (form(b"a:" + b"b" * 2000 + b"\r\n\r\n"), "header size"),
        (form(b"content-type: text/plain\r\n\r\nx"), "name"),
        (b"no form", "boundary"),
        (b"", "ends before"),
    ],
)
def test_the_sentence_says_what_is_wrong(body: bytes, reason: str) -> None:
    error = refused(body)
    assert error.code == "invalid_form"
    assert reason in error.message
    assert len(error.message) < 400


@pytest.mark.parametrize("content_type", ["multipart/form-data", f'multipart/form-data; boundary="{";" * 600}'])
def test_a_content_type_without_a_boundary_or_too_long(content_type: str) -> None:
    assert refused(form(text(b"prompt", b"x")), content_type).code == "invalid_form"


def test_lists_come_as_json_or_as_a_field_for_each_item() -> None:
    assert read(form(text(b"order", b"[1, 0]"))).fields == {"order": [1, 0]}
    assert read(form(text(b"order[]", b"1"), text(b"order[]", b"0"))).fields == {"order": [1, 0]}


def test_texts_stay_texts_and_other_fields_are_read_as_json() -> None:
    fields = (text(b"prompt", b"1"), text(b"seed", b"7"), text(b"order", b"spiral"), text(b"guidance", b"NaN"))
    assert read(form(*fields)).fields == {"prompt": "1", "seed": 7, "order": "spiral", "guidance": "NaN"}


def test_a_file_that_was_not_chosen_is_none() -> None:
    """As browsers send an empty file input, and some clients an empty text."""
    unset = b'content-disposition: form-data; name="mask"; filename=""\r\n\r\n'
    assert read(form(file(b"x"), unset)).mask is None
    assert read(form(file(b"x"), text(b"mask", b""))).mask is None
    assert read(form(file(b"x"), unset.replace(b'""', b'"a"'))).mask is not None


def test_a_file_is_kept_as_it_came() -> None:
    data = bytes(range(256)) * 8 + b"\r\n--x\r"
    assert read(form(file(data), text(b"prompt", b"x"))).image.data == data
