"""Request bodies: bounded before anything is built from them; large ones are parsed outside of the event loop.

Bytes are bounded for each route by `BodyLimit`. Here the values in a JSON body are, by counting the characters that
every value but the first stands behind: a count takes milliseconds where a list of a million strings takes seconds.
"""

import asyncio
import codecs
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

import jiter
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from oar_wire.errors import InvalidJson, InvalidRequest, RequestTimeout, UnknownField, UnsupportedMediaType
from oar_wire.options import MAX_POSITIONS
from server.api.deps import services_of

T = TypeVar("T")

MAX_VALUES = MAX_POSITIONS + 4096  # also counts commas and brackets within texts, which prompts have some of
MAX_BRACKETS = 4096  # likewise
MAX_FIELDS = 64  # of an object; a request has about thirty
INLINE_BYTES = 16 << 10  # a hop to a thread costs more than parsing these
MAX_NAME = 200  # characters of a field's name
MAX_REASON = 200  # characters of the parser's own sentence, which quotes the body
NO_NUMBERS = (b"NaN", b"Infinity")
IDENTITY = "identity"


class ParsedRequest(Request):
    """A request whose JSON body has been parsed already."""

    def __init__(self, request: Request, body: bytes, value: dict[str, Any]) -> None:
        super().__init__(request.scope, request.receive)
        self._bytes = body
        self._value = value

    async def body(self) -> bytes:
        return self._bytes

    async def json(self) -> dict[str, Any]:
        return self._value


class JsonRoute(APIRoute):
    """A route whose JSON body is bounded and parsed here, before FastAPI validates it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def handle_parsed(request: Request) -> Response:
            check_json_type(request, "send the body as JSON, with content-type: application/json")
            body = await read_body(request)
            return await handle(ParsedRequest(request, body, await run_parser(request, parse_object, body)))

        return handle_parsed


async def read_body(request: Request) -> bytes:
    """Reads the whole body, which `BodyLimit` has bounded.

    Raises UnsupportedMediaType for a compressed one, RequestTimeout for one that ends too early.
    """
    if request.headers.get("content-encoding", IDENTITY).lower() != IDENTITY:
        raise UnsupportedMediaType("send the body without Content-Encoding: nothing is decompressed here")
    try:
        return b"".join([chunk async for chunk in request.stream()])
    except ClientDisconnect as error:
        raise RequestTimeout("the body did not arrive in full") from error


async def run_parser(request: Request, parse: Callable[[bytes], T], body: bytes) -> T:
    """Runs `parse` here for a small body, else in the threads that are there for bodies alone."""
    if len(body) <= INLINE_BYTES:
        return parse(body)
    return await asyncio.get_running_loop().run_in_executor(services_of(request).parsers, parse, body)


def check_json_type(request: Request, otherwise: str) -> None:
    """Raises UnsupportedMediaType with the sentence `otherwise`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_json = kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
    if not is_json:
        raise UnsupportedMediaType(otherwise)


def parse_object(body: bytes) -> dict[str, Any]:
    """Raises InvalidJson, InvalidRequest."""
    value = parse_json(body)
    if not isinstance(value, dict):
        raise InvalidRequest("the body has to be a JSON object")
    fields = cast("dict[str, Any]", value)
    if len(fields) > MAX_FIELDS:
        raise InvalidRequest(f"the body has {len(fields)} fields; the limit is {MAX_FIELDS}")
    for name in fields:
        if len(name) > MAX_NAME:
            raise UnknownField(f"there is no field {name[:80]!r}", field=name[:80])
    return fields


def parse_json(body: bytes) -> Any:
    """Parses UTF-8 with or without a byte order mark. Raises InvalidJson, InvalidRequest."""
    if not body:
        raise InvalidJson("the body is empty")
    num_brackets = body.count(b"[") + body.count(b"{")
    if num_brackets > MAX_BRACKETS:
        message = f"the body has {num_brackets} opening brackets, too many for its JSON to be read"
        raise InvalidJson(f"{message}; the limit is {MAX_BRACKETS}")
    num_values = 1 + body.count(b",") + num_brackets
    if num_values > MAX_VALUES:
        message = f"the body has up to {num_values} values, by its commas and brackets; the limit is {MAX_VALUES}"
        raise InvalidRequest(message)
    text = body.removeprefix(codecs.BOM_UTF8)
    try:
        return jiter.from_json(text, allow_inf_nan=False, cache_mode="keys", catch_duplicate_keys=True)
    except ValueError as error:
        raise InvalidJson(f"the body is no JSON: {_reason(body, error)}") from error


def _reason(body: bytes, error: ValueError) -> str:
    try:
        body.decode()
    except UnicodeDecodeError:
        return "it is not encoded as UTF-8"
    hint = " (JSON has neither NaN nor Infinity)" if any(word in body for word in NO_NUMBERS) else ""
    return f"{str(error)[:MAX_REASON]}{hint}"
