"""Requests that never end, or end twice: over real sockets, against the API alone."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server.jobs.embedded import EmbeddedRedis
from server.settings import Settings
from tests.server.api_thread import ApiThread
from tests.server.hostile import BOUNDARY, FORM_TYPE, form_bodies, json_bodies

HANG_SECONDS = 30.0  # a test that waits this long has failed
HEAD = b"POST /v1/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
LIVE = b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def url(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("http")
    with ApiThread(Settings(redis_url=redis_server.url, data_dir=folder, head_timeout=600, body_timeout=600)) as url:
        yield url


@pytest.fixture
def hasty_url(redis_server: EmbeddedRedis, tmp_path: Path) -> Iterator[str]:
    """Of an API that waits for nobody."""
    settings = Settings(redis_url=redis_server.url, data_dir=tmp_path, head_timeout=0.3, body_timeout=0.3)
    with ApiThread(settings) as url:
        yield url


def connect(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=HANG_SECONDS)


def read_to_end(connection: socket.socket) -> bytes:
    """What comes until the server closes; raises TimeoutError where it does not."""
    received = bytearray()
    while data := connection.recv(1 << 16):
        received += data
    return bytes(received)


def read_answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one answer on a connection that stays open."""
    with connection.makefile("rb") as stream:
        status = int(stream.readline().split()[1])
        headers: dict[str, str] = {}
        while line := stream.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return status, headers, stream.read(int(headers["content-length"]))


def exchange(url: str, *sent: bytes) -> bytes:
    """Everything that comes back until the server closes."""
    with connect(url) as connection:
        for data in sent:
            connection.sendall(data)
        return read_to_end(connection)


def error_of(answer: bytes) -> tuple[int, dict[str, Any]]:
    """Status and error of an answer after which the connection was closed."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    return int(head.split()[1]), json.loads(body)["error"]


@pytest.mark.parametrize(
    "sent",
    [b"G", b"GET /live HTTP/1.1\r\n", b"GET /live HTTP/1.1\r\nHost: localhost\r\nX: ", HEAD[:-1], LIVE[:-1]],
)
def test_half_a_head_is_answered_and_closed(hasty_url: str, sent: bytes) -> None:
    status, error = error_of(exchange(hasty_url, sent))
    assert (status, error["code"]) == (408, "request_timeout")
    assert "0.3 s" in error["message"]


def test_a_connection_that_says_nothing_is_closed(hasty_url: str) -> None:
    assert exchange(hasty_url) == b""


@pytest.mark.parametrize(
    "sent",
    [
        HEAD + b"Content-Length: 100\r\n\r\n",
        HEAD + b'Content-Length: 100\r\n\r\n{"prompt"',
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"GET /live HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n",
    ],
)
def test_half_a_body_is_answered_and_closed(hasty_url: str, sent: bytes) -> None:
    answer = exchange(hasty_url, sent)
    if b"200 OK" in answer:  # nobody needed the body
        assert sent.startswith(b"GET")
        return
    status, error = error_of(answer)
    assert (status, error["code"]) == (408, "request_timeout")


def test_half_a_form_is_answered_and_closed(hasty_url: str) -> None:
    head = HEAD.replace(b"/v1/generations", b"/v1/images/edits").replace(b"application/json", FORM_TYPE.encode())
    status, error = error_of(exchange(hasty_url, head + b"Content-Length: 100\r\n\r\n--x"))
    assert (status, error["code"], error["param"]) == (408, "request_timeout", None)


def test_half_a_body_of_a_request_for_the_head_alone_is_answered_and_closed(hasty_url: str) -> None:
    sent = HEAD.replace(b"POST", b"HEAD") + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{"
    head, _, body = exchange(hasty_url, sent).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408")
    assert body == b""


IMAGES = b"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (IMAGES + b"Host : x\r\n\r\n", 400, "invalid_http"),
        (IMAGES + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "invalid_http"),
        (IMAGES.replace(b"/v1", b"http://localhost/v1") + b"Host : x\r\n\r\n", 400, "invalid_http"),
        (IMAGES + b"a:b\r\n" * 101 + b"\r\n", 431, "head_too_large"),
        (IMAGES + b"Cookie: " + b"a=b; " * 50_000 + b"\r\n\r\n", 431, "head_too_large"),
        (LIVE + IMAGES + b"Host : x\r\n\r\n", 400, "invalid_http"),
    ],
)
def test_heads_for_openais_addresses_are_refused_in_openais_shape(
    url: str, sent: bytes, status: int, code: str
) -> None:
    answer = exchange(url, sent)
    found, error = error_of(answer.split(b'{"status":"live"}')[-1])
    assert (found, error["code"], error["param"]) == (status, code, None)


@pytest.mark.parametrize("beginning", [b"GET /live HTTP/1.1\r\nX: ", HEAD + b"Content-Length: 100000\r\n\r\n"])
def test_bytes_now_and_then_gain_no_time(hasty_url: str, beginning: bytes) -> None:
    """Each byte comes well before the seconds are over; the sum of them does not."""
    with connect(hasty_url) as connection:
        connection.sendall(beginning)
        ended, closed = threading.Event(), threading.Event()

        def trickle() -> None:
            try:
                while not ended.wait(0.02):
                    connection.sendall(b"x")
            except OSError:
                closed.set()

        sender = threading.Thread(target=trickle)
        sender.start()
        try:
            status, error = error_of(read_to_end(connection))
        finally:
            ended.set()
            sender.join()
    assert (status, error["code"]) == (408, "request_timeout")


def test_the_seconds_are_those_of_each_request(hasty_url: str) -> None:
    """A connection that is kept lives longer than a head may take, and its next head has seconds of its own."""
    with connect(hasty_url) as connection:
        for _ in range(3):
            connection.sendall(LIVE)
            assert read_answer(connection)[0] == 200
            connection.settimeout(0.5)
            with pytest.raises(TimeoutError):
                connection.recv(1)
            connection.settimeout(HANG_SECONDS)
        connection.sendall(LIVE[:9])
        assert error_of(read_to_end(connection))[0] == 408


def test_a_length_that_is_given_twice_is_refused_and_closed(url: str) -> None:
    body = b"0\r\n\r\n" + LIVE  # what one server reads as the end and a second request, another reads as a body
    for headers in (
        b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n" % len(body),
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
    ):
        answer = exchange(url, HEAD + headers + body)
        status, error = error_of(answer)
        assert (status, error["code"]) == (400, "invalid_http")
        assert "Content-Length" in error["message"]
        assert b"live" not in answer, "the second request is not looked at"


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x00\xa5\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET /live HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET /live HTTP/1.1\r\n\r\n",
        HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Transfer-Encoding: gzip\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nx\r\n",
    ],
)
def test_what_is_no_http_gets_a_sentence(url: str, sent: bytes) -> None:
    status, error = error_of(exchange(url, sent))
    assert (status, error["code"]) == (400, "invalid_http")
    assert len(error["message"]) < 300


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\n",
        b"GET /live HTTP/1.1\r\nHost: localhost\r\nCookie: " + b"a=b; " * 50_000 + b"\r\n\r\n",
        b"GET /live HTTP/1.1\r\nHost: localhost\r\n" + b"a:b\r\n" * 50_000 + b"\r\n",
        b"GET /live HTTP/1.1\r\nHost: localhost\r\n" + b"a:b\r\n" * 101 + b"\r\n",
    ],
)
def test_a_head_is_bounded_even_when_it_comes_at_once(url: str, sent: bytes) -> None:
    status, error = error_of(exchange(url, sent))
    assert (status, error["code"]) == (431, "head_too_large")


def test_a_head_of_ordinary_length_passes(url: str) -> None:
    with connect(url) as connection:
        connection.sendall(LIVE[:-2] + b"Cookie: " + b"a=b; " * 3_000 + b"\r\n\r\n")
        assert read_answer(connection)[0] == 200


def test_a_body_in_crumbs_is_refused(url: str) -> None:
    crumbs = b"1\r\n \r\n" * 20_000
    status, error = error_of(exchange(url, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + crumbs))
    assert (status, error["code"]) == (400, "invalid_http")
    assert "chunks" in error["message"]


def test_a_body_in_small_chunks_is_read(url: str) -> None:
    body = b'{"prompt":"x","model":"none"' + b" " * 90_000 + b"}"
    chunks = b"".join(b"40\r\n" + body[at : at + 64].ljust(64) + b"\r\n" for at in range(0, len(body), 64))
    with connect(url) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
        assert read_answer(connection)[0] == 404, "there is no such model, and that was read"


def test_a_url_instead_of_a_path(url: str) -> None:
    with connect(url) as connection:
        connection.sendall(LIVE.replace(b"/live", b"HTTP://localhost/live"))
        assert read_answer(connection)[0] == 200
        connection.sendall(LIVE.replace(b"/live", b"http://localhost"))
        assert read_answer(connection)[0] == 200


def test_the_host_of_a_url_is_the_one_that_counts(url: str) -> None:
    with connect(url) as connection:
        connection.sendall(LIVE.replace(b"/live", b"http://elsewhere.example/live"))
        assert read_answer(connection)[0] == 421


def test_two_requests_at_once_are_answered_in_turn(url: str) -> None:
    with connect(url) as connection:
        last = LIVE[:-2] + b"Connection: close\r\n\r\n"
        connection.sendall(LIVE + HEAD + b"Content-Length: 2\r\n\r\n[]" + last)
        answers = read_to_end(connection)
    assert answers.count(b'{"status":"live"}') == 2
    assert answers.count(b'"code":"invalid_request"') == 1


def test_a_client_that_still_sends_reads_why_it_is_refused(url: str) -> None:
    length = 9 << 20
    with connect(url) as connection:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % length)
        connection.sendall(bytes(length))
        status, _, body = read_answer(connection)
    assert (status, json.loads(body)["error"]["code"]) == (413, "body_too_large")


def test_a_client_that_asks_first_need_not_send_what_is_too_large(url: str) -> None:
    with connect(url) as connection:
        connection.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 9000000\r\n\r\n")
        status, _, body = read_answer(connection)
    assert (status, json.loads(body)["error"]["code"]) == (413, "body_too_large")


def test_a_compressed_body_is_not_read(url: str) -> None:
    with connect(url) as connection:
        connection.sendall(HEAD + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}")
        status, _, body = read_answer(connection)
    assert (status, json.loads(body)["error"]["code"]) == (415, "unsupported_media_type")


SIZE = 300_000
FORMS = [("/v1/edits", BOUNDARY, body) for body in form_bodies(SIZE).values()]
JSONS = [("/v1/edits", b"", body) for body in json_bodies(SIZE).values()]


@pytest.mark.parametrize(("path", "boundary", "body"), [*FORMS, *JSONS])
def test_hostile_bodies_over_the_wire(url: str, path: str, boundary: bytes, body: bytes) -> None:
    kind = b"multipart/form-data; boundary=" + boundary if boundary else b"application/json"
    head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
    with connect(url) as connection:
        connection.sendall(head % (path.encode(), kind, len(body)) + body)
        status, _, answer = read_answer(connection)
        assert status in {400, 422, 503}, "503: it could be read, and there is no model"
        assert len(answer) < 2_000
        connection.sendall(LIVE)
        assert read_answer(connection)[0] == 200, "the connection is good for more"


def test_many_bodies_at_once_are_bounded_together(redis_server: EmbeddedRedis, tmp_path: Path) -> None:
    length = 40_000
    head = HEAD + b"Content-Length: %d\r\n\r\n" % length
    settings = Settings(redis_url=redis_server.url, data_dir=tmp_path, max_held_bytes=60_000)

    def ask(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
        connection.sendall(head + b"[]".ljust(length))
        return read_answer(connection)

    with ApiThread(settings) as url, connect(url) as slow, connect(url) as other:
        assert ask(other)[0] == 422
        slow.sendall(head + b"[".ljust(length - 1))
        while True:  # until the server has read it
            status, headers, body = ask(other)
            if status == 503:
                break
        assert json.loads(body)["error"]["code"] == "too_many_uploads"
        assert headers["retry-after"] == "1"
        slow.sendall(b"]")
        assert read_answer(slow)[0] == 422
        assert ask(other)[0] == 422, "what ended is no longer counted"


def test_chunked_bodies_are_counted_too(redis_server: EmbeddedRedis, tmp_path: Path) -> None:
    settings = Settings(redis_url=redis_server.url, data_dir=tmp_path, max_held_bytes=60_000)
    chunks = b"2710\r\n" + b" " * 10_000 + b"\r\n"
    with ApiThread(settings) as url, connect(url) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks * 7 + b"0\r\n\r\n")
        assert read_answer(connection)[0] == 503
        connection.sendall(LIVE)
        assert read_answer(connection)[0] == 200
