"""uvicorn's protocols, with our answers to what never becomes a request: a broken head, a failed handshake."""

import json
import logging
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from server.api.request_id import HEADER, chosen_id, new_id
from server.errors import InvalidHttp
from server.observability.logging import REQUEST_ID

logger = logging.getLogger(__name__)


class HttpProtocol(H11Protocol):
    def send_400_response(self, msg: str) -> None:
        """uvicorn logs `msg`; the client reads a sentence in the shape of all errors."""
        if self.conn.our_state is not h11.IDLE and self.conn.our_state is not h11.SEND_RESPONSE:
            self.transport.close()  # an answer has begun: nothing can be said any more
            return
        request_id = new_id()
        token = REQUEST_ID.set(request_id)
        logger.info("%s client=%s", msg, (self.client or ("unknown",))[0])
        REQUEST_ID.reset(token)
        error = InvalidHttp("this is no HTTP/1.1 request that can be read")
        body = json.dumps(error.to_json()).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            (HEADER, request_id.encode()),
        ]
        events = (h11.Response(status_code=error.status, headers=headers), h11.Data(data=body), h11.EndOfMessage())
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        self.transport.close()


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
