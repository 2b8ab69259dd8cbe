"""Websockets as uvicorn speaks them: what a client may say is bounded, and refusals have the shape of all errors."""

import json
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from oar_wire.error import ServerError
from oar_wire.errors import InvalidHttp, MethodNotAllowed
from server.api.request_id import HEADER, chosen_id, new_id

# What clients say is ignored, and each frame costs as much as some hundred bytes of it.
MAX_FRAMES = 256
FRAME_SECONDS = 10.0
SLICE_BYTES = 1 << 10  # that are read before frames are counted
LIBRARYS_WORDS = "Failed to open a WebSocket connection: "


class _Handshake(ServerProtocol):
    """Names the refusals that the handshake itself makes; those of the application have their name already."""

    _request_id = ""
    num_frames = 0

    def accept(self, request: Request) -> Response:
        self._request_id = chosen_id(request.headers.get(HEADER.decode()))
        return super().accept(request)

    def reject(self, status: HTTPStatus | int, text: str) -> Response:
        """Refuses as JSON. Who calls adds `Allow`; the status stays the library's."""
        reason = text.removeprefix(LIBRARYS_WORDS).strip()
        error: ServerError = InvalidHttp(f"this is no websocket's handshake that can be read: {reason[:200]}")
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            error = MethodNotAllowed("a websocket is opened with GET")
        response = super().reject(status, json.dumps(error.to_json()) if reason else text)
        if reason:
            del response.headers["Content-Type"]
            response.headers["Content-Type"] = "application/json"
        if status == HTTPStatus.BAD_REQUEST:
            response.headers["Sec-WebSocket-Version"] = "13"
        return response

    def send_response(self, response: Response) -> None:
        if HEADER.decode() not in response.headers:
            response.headers[HEADER.decode()] = self._request_id or new_id()
        super().send_response(response)

    def recv_frame(self, frame: Frame) -> None:
        self.num_frames += 1
        super().recv_frame(frame)


class SocketProtocol(WebSocketsSansIOProtocol):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn: _Handshake = _Handshake(
            extensions=self.conn.available_extensions,
            max_size=self.config.ws_max_size,
            logger=self.conn.logger,
        )
        self._num_before = 0  # frames, at `_since`
        self._since = 0.0

    def data_received(self, data: bytes) -> None:
        """The first call brings a whole head, which an HTTP parser has read before."""
        if not self.handshake_initiated:
            super().data_received(data)
            if not self.handshake_initiated:  # nothing else would ever end it
                self.transport.close()
            return
        for start in range(0, len(data), SLICE_BYTES):
            if self.transport.is_closing():
                return
            num_before = self.conn.num_frames
            super().data_received(data[start : start + SLICE_BYTES])
            self._count_frames(num_before)

    def _count_frames(self, num_before: int) -> None:
        now = self.loop.time()
        if now - self._since >= FRAME_SECONDS:
            self._num_before, self._since = num_before, now
        is_too_much = self.conn.num_frames - self._num_before > MAX_FRAMES
        if is_too_much and not self.close_sent and not self.transport.is_closing():
            self.conn.fail(CloseCode.POLICY_VIOLATION, "too many messages")
            self.handle_parser_exception()

    def handle_ping(self) -> None:
        """A client that does not read its answers gets no more of them."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()
