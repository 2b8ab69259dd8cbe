"""A name for each request: on its answer as `x-request-id`, and in every line that is logged while it is served.

A client or a proxy may choose it; what could break a log line is replaced by one of ours.
"""

import re
import secrets

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.credentials import read_header
from server.observability.logging import REQUEST_ID

HEADER = b"x-request-id"
CHOSEN = re.compile(r"[A-Za-z0-9._-]{1,128}")
ANSWERS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})


def new_id() -> str:
    return f"req-{secrets.token_hex(12)}"


def chosen_id(value: str | None) -> str:
    """The client's own, where it is one; else a new one."""
    return value if value is not None and CHOSEN.fullmatch(value) else new_id()


class RequestIds:
    """The outermost layer: errors of all the others are answered inside of it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        request_id = chosen_id(read_header(scope, HEADER))

        async def named(message: Message) -> None:
            if message["type"] in ANSWERS:
                message = {**message, "headers": [*message.get("headers", ()), (HEADER, request_id.encode("ascii"))]}
            await send(message)

        token = REQUEST_ID.set(request_id)
        try:
            await self.app(scope, receive, named)
        finally:
            REQUEST_ID.reset(token)
