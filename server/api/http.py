"""HTTP/1.1 as uvicorn speaks it, with bounds on what a client may send and how long it may take.

A connection waits for a head, for a body, or idles between two requests; each has its own number of seconds, counted
from its beginning, so that a client that sends a byte now and then gains nothing.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, cast

import h11
import uvicorn
from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol
from uvicorn.server import ServerState

from oar_wire.error import ServerError
from oar_wire.errors import HeadTooLarge, InvalidHttp, RequestTimeout
from server.api.credentials import read_header
from server.api.faults import respond
from server.api.proxy import route_path
from server.api.request_id import HEADER, chosen_id, new_id
from server.api.sockets import SocketProtocol
from server.observability.logging import REQUEST_ID
from server.settings import Settings

logger = logging.getLogger(__name__)

# Clients and balancers have to close an idle connection first: one that we close while a request is on its way to us
# is a reset, and the request is lost. httpx keeps connections for 5 s, balancers commonly for 60 s.
KEEP_ALIVE_SECONDS = 75
GRACEFUL_SECONDS = 3
LINGER_SECONDS = 2.0  # a client that still sends sees a reset instead of the answer if the connection is closed at once
MAX_FRAME_BYTES = 4 << 10  # of a websocket; what clients say there is ignored
MAX_HEAD_BYTES = 32 << 10
MAX_HEADERS = 100
MAX_HANDSHAKE_LINE = 8000  # the websocket's parser takes 8192 with the line's other parts
MAX_ADDRESS_BYTES = 2 << 10  # that are looked at to tell whose shape of errors is read there
# h11 bounds an incomplete head alone, so that one which arrives at once may have any length: it is fed in slices.
SLICE_BYTES = 16 << 10
# Each chunk costs as much as hundreds of bytes: from so many on, they have to be this long on average.
FREE_CHUNKS = 1024
MIN_CHUNK_BYTES = 64
TCP_USER_TIMEOUT: int = getattr(socket, "TCP_USER_TIMEOUT", 0)  # of Linux
NOT_ANSWERED = (h11.IDLE, h11.SEND_RESPONSE)

Phase = Literal["head", "body", "idle"]


class BoundedConnection(h11.Connection):
    """Refuses requests whose length is given twice, too many headers, and bodies in tiny chunks."""

    fault: h11.RemoteProtocolError | None = None
    _start = b""  # of the head that comes in

    @property
    def path(self) -> str:
        """Path in the head that came in last, as far as it can be read: it decides in which shape an error is
        answered."""
        words = self._start.split(b" ", 2)
        if len(words) == 1:
            return ""
        return _split(words[1].partition(b"?")[0])[1].decode("latin-1")

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Raises RemoteProtocolError, and keeps it in `fault`."""
        if self.their_state is h11.IDLE:
            self._start = self.trailing_data[0][:MAX_ADDRESS_BYTES]
        try:
            event = super().next_event()
            if isinstance(event, h11.Request):
                self._check_head(event)
                return _with_path(event)
            if isinstance(event, h11.Data):
                self._count_chunks(event)
        except h11.RemoteProtocolError as error:
            self.fault = error
            raise
        return event

    def _check_head(self, request: h11.Request) -> None:
        self._num_chunks = self._num_bytes = 0
        names = [name for name, _ in request.headers]
        if len(names) > MAX_HEADERS:
            raise h11.RemoteProtocolError(f"more than {MAX_HEADERS} headers", error_status_hint=431)
        # As slices come, h11 may have taken one more.
        if len(request.target) + sum(len(name) + len(value) + 4 for name, value in request.headers) > MAX_HEAD_BYTES:
            raise h11.RemoteProtocolError(f"a head of more than {MAX_HEAD_BYTES} bytes", error_status_hint=431)
        if b"content-length" in names and b"transfer-encoding" in names:
            # Two servers that choose differently see different requests.
            raise h11.RemoteProtocolError("both Content-Length and Transfer-Encoding")

    def _count_chunks(self, data: h11.Data) -> None:
        self._num_chunks += data.chunk_end
        self._num_bytes += len(data.data)
        if self._num_chunks > FREE_CHUNKS and self._num_bytes < MIN_CHUNK_BYTES * self._num_chunks:
            raise h11.RemoteProtocolError(f"chunks of less than {MIN_CHUNK_BYTES} bytes")


def _with_path(request: h11.Request) -> h11.Request:
    """The request with a path, where a client sent a whole URL as it does to a proxy; then the URL's host counts."""
    authority, path = _split(request.target)
    if not authority:
        return request
    headers = [(b"host", authority), *(header for header in request.headers if header[0] != b"host")]
    return h11.Request(method=request.method, target=path, headers=headers, http_version=request.http_version)


def _split(target: bytes) -> tuple[bytes, bytes]:
    """The authority of a whole URL, empty for anything else, and the path with what follows it."""
    scheme, _, rest = target.partition(b"://")
    if scheme.lower() not in {b"http", b"https"}:
        return b"", target
    authority, slash, path = rest.partition(b"/")
    return authority, slash + path or b"/"


class PhaseTimer:
    """Counts the seconds of the phase that a connection is in."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seconds: Mapping[Phase, float], on_end: Callable[[Phase], None]
    ) -> None:
        self._loop = loop
        self._seconds = seconds
        self._on_end = on_end
        self._phase: Phase | None = None
        self._handle: asyncio.TimerHandle | None = None

    def begin(self, phase: Phase | None) -> None:
        """Goes on where the phase is the same; stops for None."""
        if phase == self._phase:
            return
        self._phase = phase
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if phase is not None:
            self._handle = self._loop.call_later(self._seconds[phase], self._on_end, phase)


class HttpProtocol(H11Protocol):
    head_seconds: ClassVar[float]
    body_seconds: ClassVar[float]
    unread_seconds: ClassVar[float]
    root_path: ClassVar[str]

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn: BoundedConnection = BoundedConnection(h11.SERVER, MAX_HEAD_BYTES)
        seconds: dict[Phase, float] = {
            "head": self.head_seconds,
            "body": self.body_seconds,
            "idle": self.timeout_keep_alive,
        }
        self._timer = PhaseTimer(self.loop, seconds, self._end_waiting)
        self._is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        _bound_unread(transport, self.unread_seconds)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.begin(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        for start in range(0, len(data), SLICE_BYTES):
            if self._is_refused or self.transport.is_closing():
                return
            super().data_received(data[start : start + SLICE_BYTES])
            if self.transport.get_protocol() is not self:  # a websocket now
                self._timer.begin(None)
                return
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Refuses here, where it can be answered, what the websocket's own parser would not read."""
        lines = (event.target, *(name + value for name, value in event.headers))
        has_body = any(
            name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
            for name, value in event.headers
        )
        if any(len(line) > MAX_HANDSHAKE_LINE for line in lines):
            limit = f"{MAX_HANDSHAKE_LINE} bytes a line"
            self._refuse(HeadTooLarge(f"the handshake's head is too large; the limit of a websocket is {limit}"))
        elif has_body:
            self._refuse(InvalidHttp("a websocket's handshake has no body"))
        else:
            super().handle_websocket_upgrade(event)

    def send_400_response(self, msg: str) -> None:
        """Says what is wrong in the shape that all errors have."""
        fault = self.conn.fault
        if fault is not None and fault.error_status_hint == HeadTooLarge.status:
            limit = f"{MAX_HEAD_BYTES} bytes and {MAX_HEADERS} headers"
            self._refuse(HeadTooLarge(f"the request's head is too large; the limit is {limit}"))
        else:
            self._refuse(InvalidHttp(f"this is no HTTP/1.1 request that can be read: {str(fault or msg)[:200]}"))

    def _watch(self) -> None:
        """Counts the seconds of what the client is at, from when that began."""
        if self._is_refused or self.transport.is_closing():
            return
        match self.conn.their_state:
            case h11.IDLE:
                is_idle = self._has_served() and not self.conn.trailing_data[0]
                self._timer.begin("idle" if is_idle else "head")
            case h11.SEND_BODY:
                self._timer.begin("body")
            case _:
                self._timer.begin(None)

    def _end_waiting(self, phase: Phase) -> None:
        has_begun = phase == "body" or bool(self.conn.trailing_data[0])
        if self.transport.is_closing():
            return
        if not has_begun:
            self.transport.close()
            return
        seconds = self.head_seconds if phase == "head" else self.body_seconds
        self._refuse(RequestTimeout(f"the request's {phase} did not arrive in full within {seconds:g} s"))

    def _refuse(self, error: ServerError) -> None:
        """Answers unless an answer has begun, and closes the connection; to the application the client has left."""
        self._is_refused = True
        self._timer.begin(None)
        if self.conn.our_state in NOT_ANSWERED:
            self._write(error)
        if self._has_served():
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.loop.call_later(LINGER_SECONDS, self.transport.close)
        else:
            self.transport.close()

    def _write(self, error: ServerError) -> None:
        is_known = self._has_served() and self.conn.our_state is h11.SEND_RESPONSE
        # What is known of a head that could not be read is its path at best.
        scope = cast("Scope", self.scope) if is_known else {"path": self.conn.path, "root_path": self.root_path}
        answer = respond(error, route_path(scope))
        request_id = chosen_id(read_header(scope, HEADER)) if is_known else new_id()
        answer.headers[HEADER.decode()] = request_id
        token = REQUEST_ID.set(request_id)
        logger.info("%s: %s client=%s", error.code, error, (self.client or ("unknown",))[0])
        REQUEST_ID.reset(token)
        reason = STATUS_PHRASES[error.status]
        head = h11.Response(status_code=error.status, headers=[*answer.raw_headers, CLOSE_HEADER], reason=reason)
        body = b"" if is_known and self.scope["method"] == "HEAD" else bytes(answer.body)
        for event in (head, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event))

    def _has_served(self) -> bool:
        """Tells whether a request came; uvicorn declares what it sets then as never None."""
        return self.cycle is not None  # pyright: ignore[reportUnnecessaryComparison]


def _bound_unread(transport: asyncio.Transport, seconds: float) -> None:
    """Lets the kernel end a connection whose client takes none of what was sent to it for so long.

    A transport that is closed waits until all was taken, for ever if need be, and keeps it in memory.
    """
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family in {socket.AF_INET, socket.AF_INET6} and TCP_USER_TIMEOUT:
        connection.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, max(1, int(1000 * seconds)))


def bounded_http(settings: Settings) -> type[HttpProtocol]:
    """uvicorn makes the protocol of a connection from a class, which therefore carries the settings."""
    return type(
        "BoundedHttpProtocol",
        (HttpProtocol,),
        {
            "head_seconds": settings.head_timeout,
            "body_seconds": settings.body_timeout,
            # A client that read nothing for one such time is told so, and has as long again to read why.
            "unread_seconds": 2 * settings.socket_send_timeout,
            "root_path": settings.root_path,
        },
    )


def server_config(app: ASGIApp, settings: Settings, more: Mapping[str, Any] | None = None) -> uvicorn.Config:
    """Configuration of uvicorn; `more` are further arguments of uvicorn's."""
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=bounded_http(settings),
        ws=SocketProtocol,
        proxy_headers=False,  # the application reads them itself: host and prefix, too
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        ws_ping_interval=settings.socket_ping,
        ws_ping_timeout=settings.socket_ping,
        ws_max_size=MAX_FRAME_BYTES,
        # It would double the memory of a socket and the time in which thousands are told of an event.
        ws_per_message_deflate=False,
        **(more or {}),
    )
