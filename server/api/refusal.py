"""Saying no before any route is reached, in HTTP and on websockets."""

import asyncio
import json

from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from oar_wire.error import ServerError
from server.api.credentials import choose_protocol, read_header
from server.api.faults import respond
from server.api.proxy import route_path

DRAIN_BYTES = 32 << 20
DRAIN_SECONDS = 5.0


async def refuse(error: ServerError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the error's status; on a websocket as a frame and a close code, as the page that opened it can
    read."""
    if scope["type"] == "websocket":
        await _refuse_socket(WebSocket(scope, receive, send), error)
        return
    response = respond(error, route_path(scope))
    if read_header(scope, b"expect") is None:
        # A client that still writes would see a broken connection instead of the answer.
        await _drain(receive)
    else:
        # It asked first, and need not send what nobody reads.
        response.headers["Connection"] = "close"
    await response(scope, receive, send)


async def deny(error: ServerError, scope: Scope, receive: Receive, send: Send) -> None:
    """Refuses, but a websocket is not even opened: who opened it is to learn nothing."""
    if scope["type"] != "websocket":
        await refuse(error, scope, receive, send)
        return
    socket = WebSocket(scope, receive, send)
    if "websocket.http.response" in scope.get("extensions", {}):
        await socket.send_denial_response(respond(error, route_path(scope)))
    else:
        await socket.close(error.close_code)


async def _refuse_socket(socket: WebSocket, error: ServerError) -> None:
    await socket.accept(subprotocol=choose_protocol(socket.scope))
    await socket.send_text(json.dumps({**error.to_json(), "seq": 0}))
    await socket.close(error.close_code, error.code)


async def _drain(receive: Receive) -> None:
    size = 0
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            while size < DRAIN_BYTES:
                message = await receive()
                size += len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return
