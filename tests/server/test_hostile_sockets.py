"""Clients that open websockets as no library does, that talk without end, and that never read."""

import contextlib
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from oar_wire.model import ModelInfo, WorkerInfo
from server.jobs.connection import RedisConnection
from server.jobs.embedded import EmbeddedRedis
from server.jobs.queue import JobQueue
from server.jobs.store import Registry
from server.settings import Settings
from tests.server.api_thread import ApiThread
from tests.server.jobs.protocol import params
from tests.server.test_http import LIVE, connect, error_of, exchange
from tests.waiting import wait_for

pytestmark = pytest.mark.anyio

MASKED = b"\0\0\0\0"
LAST_PING, LAST_PONG = b"\x89\x84" + MASKED + b"last", b"\x8a\x04last"
EMPTY_PING, EMPTY_TEXT = b"\x89\x80" + MASKED, b"\x81\x80" + MASKED


@pytest.fixture(scope="module")
def url(redis_server: EmbeddedRedis) -> Iterator[str]:
    with ApiThread(Settings(redis_url=redis_server.url)) as url:
        yield url


@pytest.fixture
async def job_id(connection: RedisConnection, settings: Settings, model_info: ModelInfo) -> str:
    """Of a job that waits for a worker that never comes."""
    registry = Registry(connection)
    await registry.publish_models([model_info], {}, 600)
    await registry.workers.beat(WorkerInfo(name="test", models=("tiny",), slots=2), 60)
    return (await JobQueue(connection, settings).submit(params())).job_id


def handshake(
    *headers: bytes,
    method: bytes = b"GET",
    path: bytes = b"/v1/generations/gen-0/stream",
    key: bytes = b"dGhlIHNhbXBsZSBub25jZQ==",
    version: bytes = b"13",
) -> bytes:
    lines = (
        method + b" " + path + b" HTTP/1.1",
        *(b"Host: localhost", b"Upgrade: websocket", b"Connection: Upgrade"),
        *(b"Sec-WebSocket-Key: " + key, b"Sec-WebSocket-Version: " + version),
        *headers,
    )
    return b"\r\n".join(lines) + b"\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        handshake(b"Sec-WebSocket-Protocol: " + b",".join([b"p"] * 5000)),
        handshake(b"X-Long: " + b"a" * 8200),
        handshake(b"a" * 8200 + b": x"),
        handshake(path=b"/v1/generations/" + b"a" * 8200 + b"/stream"),
        handshake(path=b"/v1/generations/gen-0/stream?after=" + b"0" * 8200),
    ],
)
def test_a_handshake_that_is_too_long_is_refused(url: str, sent: bytes) -> None:
    """It was never answered, and its connection stayed open for ever."""
    status, error = error_of(exchange(url, sent))
    assert (status, error["code"]) == (431, "head_too_large")


@pytest.mark.parametrize("header", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
def test_a_handshake_with_a_body_is_refused(url: str, header: bytes) -> None:
    """Likewise."""
    status, error = error_of(exchange(url, handshake(header), b"hello"))
    assert (status, error["code"]) == (400, "invalid_http")


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (handshake(version=b"8"), (400, "invalid_http")),
        (handshake(version=b"x"), (400, "invalid_http")),
        (handshake(key=b"x"), (400, "invalid_http")),
        (handshake(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), (400, "invalid_http")),
        (handshake(method=b"POST"), (405, "method_not_allowed")),
    ],
)
def test_a_bad_handshake_is_refused_in_the_shape_of_all_errors(
    url: str, sent: bytes, expected: tuple[int, str]
) -> None:
    answer = exchange(url, sent)
    status, error = error_of(answer)
    assert (status, error["code"]) == expected
    head = answer.partition(b"\r\n\r\n")[0].lower()
    assert b"\r\nx-request-id: req-" in head
    assert b"\r\ncontent-type: application/json" in head
    assert head.count(b"\r\nallow: get") == (status == 405)
    assert head.count(b"\r\nsec-websocket-version: 13") == (status == 400)


@pytest.mark.parametrize("frame", [EMPTY_PING, EMPTY_TEXT])
async def test_a_client_that_talks_without_end_is_closed(url: str, job_id: str, frame: bytes) -> None:
    """Six megabytes of empty pings held up everybody for seven seconds."""
    with connect(url) as talker:
        talker.sendall(handshake(path=f"/v1/generations/{job_id}/stream".encode()))
        with contextlib.suppress(OSError):  # it still sends when the connection is closed
            while True:
                talker.sendall(frame * 10_000)
    with connect(url) as other:
        other.sendall(LIVE)
        assert other.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("num_frames", [256, 257])
async def test_a_client_may_say_something(url: str, job_id: str, num_frames: int) -> None:
    """A ping is answered, and it is told when it was too many."""
    with connect(url) as talker:
        talker.sendall(handshake(path=f"/v1/generations/{job_id}/stream".encode()))
        read_until(talker, b'"queued"')
        talker.sendall(EMPTY_TEXT * (num_frames - 1) + LAST_PING)
        if num_frames > 256:
            assert read_until(talker, b"too many messages").endswith(b"\x03\xf0too many messages")  # 1008
        else:
            read_until(talker, LAST_PONG)


def read_until(connection: socket.socket, what: bytes) -> bytes:
    received = b""
    while what not in received:
        data = connection.recv(1 << 16)
        assert data, received
        received += data
    return received


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the kernel has no bound for what is not read")
def test_a_client_that_never_reads_is_let_go(redis_server: EmbeddedRedis) -> None:
    """Its connection stayed for as long as it liked, with all that was to be sent to it."""
    api = ApiThread(Settings(redis_url=redis_server.url, socket_send_timeout=0.5))
    with api as url:
        connections = api._server.server_state.connections
        with connect(url) as mute:
            mute.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            mute.sendall(LIVE.replace(b"/live", b"/openapi.json") * 20)
            wait_for(lambda: connections)
            wait_for(lambda: not connections)
            received = 0
            with contextlib.suppress(ConnectionError):
                while data := mute.recv(1 << 16):
                    received += len(data)
        assert received < len(httpx.get(f"{url}/openapi.json", headers={"accept-encoding": "identity"}).content)


def test_a_head_is_bounded_however_it_arrives(url: str) -> None:
    """One that came at once could be half as long again."""
    sent = b"GET /live HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 40_000 + b"\r\n\r\n"
    status, error = error_of(exchange(url, sent))
    assert (status, error["code"]) == (431, "head_too_large")
    with connect(url) as slow:
        for start in range(0, len(sent), 4000):
            slow.sendall(sent[start : start + 4000])
            time.sleep(0.001)
        assert slow.recv(100).startswith(b"HTTP/1.1 431")
