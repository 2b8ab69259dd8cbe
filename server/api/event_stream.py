"""Server-sent events: `text/event-stream` over HTTP, for clients without a websocket.

A comment is sent when nothing happened for a while, so that no proxy takes the silence for the end.

By hand: sse-starlette would save 14 lines. It patches uvicorn's server at import, and ends streams as soon as a stop
begins, which cancels pictures that could still be finished.
"""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from oar_wire.error import ServerError
from oar_wire.errors import InternalError
from server.api.deps import Services
from server.tasks import until_one_ends

logger = logging.getLogger(__name__)

HEARTBEAT = ": no news\n\n"
# For the OpenAPI document: one event.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "The `seq`, where the stream can be taken up again"},
        "event": {"type": "string", "description": "The type, as in the data"},
        "data": {"type": "string", "description": "JSON on one line"},
    },
    "required": ["event", "data"],
}
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # nginx would gather events into blocks


def frame(event: str, data: str, seq: int | None = None) -> str:
    """One event; `data` is JSON on one line."""
    number = "" if seq is None else f"id: {seq}\n"
    return f"{number}event: {event}\ndata: {data}\n\n"


def error_frame(body: dict[str, Any]) -> str:
    """Error once the answer had begun, in the shape that the route's other errors have."""
    return frame("error", json.dumps({"type": "error", **body}))


class EventStreamResponse(Response):
    """Sends `frames` as they come. A client that leaves is noticed at once; then, and at any other end, `on_close` is
    called. An error becomes the last frame."""

    media_type = "text/event-stream"

    def __init__(
        self,
        services: Services,
        frames: AsyncGenerator[str],
        *,
        error_body: Callable[[ServerError], dict[str, Any]] = ServerError.to_json,
        on_close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._services = services
        self._frames = frames
        self._error_body = error_body
        self._on_close = on_close

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        services = self._services
        services.metrics.event_streams.inc()
        try:
            with services.stream_limits.hold(services.tenant):
                await until_one_ends(self._send_all(send), wait_until_left(receive))
        finally:
            services.metrics.event_streams.dec()
            if self._on_close is not None:
                await self._on_close()

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            await self._relay(send)
        except TimeoutError:
            self._services.metrics.slow_clients.inc()
            return
        await send({"type": "http.response.body", "body": b""})

    async def _relay(self, send: Send) -> None:
        try:
            async with aclosing(self._frames) as frames:
                async for text in frames:
                    await self._send(send, text)
        except ServerError as error:
            await self._send(send, error_frame(self._error_body(error)))
        except TimeoutError:
            raise
        except Exception:
            logger.exception("event stream failed")
            error = InternalError()
            await self._send(send, error_frame(self._error_body(error)))

    async def _send(self, send: Send, text: str) -> None:
        async with asyncio.timeout(self._services.settings.socket_send_timeout):
            await send({"type": "http.response.body", "body": text.encode(), "more_body": True})


async def wait_until_left(receive: Receive) -> None:
    """Returns when the client closes the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


def check_stream_limits(services: Services) -> None:
    """Raises TooManySockets."""
    services.stream_limits.check(services.tenant, "event stream")
