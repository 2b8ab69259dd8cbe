"""Websockets as uvicorn speaks them; a handshake that fails has a name, too."""

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from server.api.request_id import HEADER, chosen_id, new_id


class _Handshake(ServerProtocol):
    """Names the refusals that the handshake itself makes; those of the application have their name already."""

    _request_id = ""

    def accept(self, request: Request) -> Response:
        self._request_id = chosen_id(request.headers.get(HEADER.decode()))
        return super().accept(request)

    def send_response(self, response: Response) -> None:
        if HEADER.decode() not in response.headers:
            response.headers[HEADER.decode()] = self._request_id or new_id()
        super().send_response(response)


class SocketProtocol(WebSocketsSansIOProtocol):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = _Handshake(
            extensions=self.conn.available_extensions,
            max_size=self.config.ws_max_size,
            logger=self.conn.logger,
        )
