"""ASGI middleware: the body limit, HEAD, the count of answers, and their traces."""

import logging
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oar_wire.errors import BodyTooLarge, TooManyUploads
from server.api.proxy import route_path
from server.api.refusal import refuse
from server.observability.spans import Tracing

logger = logging.getLogger(__name__)

UNTRACED = frozenset({"/live", "/ready", "/metrics"})


class BodyLimit:
    """Refuses large bodies without keeping them: by the announced length, else while they come in.

    All bodies that have come in are counted together until their requests end, so that many clients cannot fill the
    memory, each with a body that is small enough.
    """

    def __init__(self, app: ASGIApp, limit: int, uploads: Mapping[str, int], max_held: int) -> None:
        """`uploads` are the limits of the addresses that have others; all in bytes."""
        self.app = app
        self.limit = limit
        self.uploads = uploads
        self.max_held = max_held
        self.num_held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self.uploads.get(route_path(scope), self.limit)
        announced = _content_length(scope)
        if announced is not None and announced > limit:
            await self._refuse(limit, scope, receive, send)
            return
        with self._held(receive) as counted:
            try:
                # A length that was announced is enforced by the HTTP parser.
                body = counted if announced is not None else await self._read(limit, counted)
            except TooManyUploads as error:
                await refuse(error, scope, receive, send)
                return
            if body is None:
                await self._refuse(limit, scope, receive, send)
            else:
                await self.app(scope, body, send)

    @contextmanager
    def _held(self, receive: Receive) -> Generator[Receive]:
        """A `receive` that counts, and raises TooManyUploads where all bodies together are too large."""
        own = 0

        async def counted() -> Message:
            nonlocal own
            message = await receive()
            size = len(message.get("body", b""))
            if size and self.num_held + size > self.max_held:
                raise TooManyUploads(
                    "the bodies of other requests fill the memory that is there for them", retry_after=1
                )
            own += size
            self.num_held += size
            return message

        try:
            yield counted
        finally:
            self.num_held -= own

    async def _read(self, limit: int, receive: Receive) -> Receive | None:
        """A chunked body, read up to the limit and no further; None if it is longer."""
        messages: list[Message] = []
        size = 0
        while True:
            message = await receive()
            messages.append(message)
            size += len(message.get("body", b""))
            if size > limit:
                return None
            if not message.get("more_body", False):
                return _replay(messages, receive)

    async def _refuse(self, limit: int, scope: Scope, receive: Receive, send: Send) -> None:
        await refuse(BodyTooLarge(f"the body is larger than {limit} bytes"), scope, receive, send)


def _content_length(scope: Scope) -> int | None:
    """None for a chunked body; 0 where there is none."""
    headers = dict(scope["headers"])
    if b"transfer-encoding" in headers:
        return None
    value: bytes = headers.get(b"content-length", b"0")
    return int(value) if value.isdigit() else 0


def _replay(messages: list[Message], receive: Receive) -> Receive:
    waiting = iter(messages)

    async def replayed() -> Message:
        return next(waiting, None) or await receive()

    return replayed


class HeadAsGet:
    """Answers HEAD with the head of what GET answers. Whatever would follow, a stream too, ends with the head."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        asked = {**scope, "method": "GET"}  # the server below knows by its own scope that no body follows
        is_answered = False

        async def headed(message: Message) -> None:
            nonlocal is_answered
            if message["type"] != "http.response.start":
                return
            is_answered = True
            scope["route"] = asked.get("route")  # for those who count
            await send(message)
            await send({"type": "http.response.body", "body": b""})

        async def left() -> Message:
            return {"type": "http.disconnect"} if is_answered else await receive()

        await self.app(asked, left, headed)


class CountAnswers:
    """Tells `count(method, route, status, seconds)` of every answer; the route is the template, never the address."""

    def __init__(self, app: ASGIApp, count: Callable[[str, str, int, float], None]) -> None:
        self.app = app
        self.count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.monotonic()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                path = getattr(scope.get("route"), "path", "unmatched")
                seconds = time.monotonic() - start
                self.count(scope["method"], path, message["status"], seconds)
                client = (scope.get("client") or ("unknown",))[0]
                logger.debug(
                    "%s %s %d %.1f ms client=%s", scope["method"], path, message["status"], 1000 * seconds, client
                )
            await send(message)

        await self.app(scope, receive, counted)


class TraceRequests:
    """A span for each HTTP request but those of probes.

    OpenTelemetry's own middleware would write the query into the span, and with it the signature of a link.
    """

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self.app = app
        self.tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or route_path(scope) in UNTRACED:
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        with self.tracing.request(scope["method"], headers) as answered:

            async def recorded(message: Message) -> None:
                if message["type"] == "http.response.start":
                    answered(getattr(scope.get("route"), "path", "unmatched"), message["status"])
                await send(message)

            await self.app(scope, receive, recorded)
