"""Callbacks, by a real receiver on 127.0.0.1: signed, repeated, bounded, and never lost with a process."""

import base64
import hashlib
import hmac
import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import pytest
from redis import Redis

from server.jobs.embedded import EmbeddedRedis
from tests.server.live import LiveServer
from tests.server.tenants import bearer, write_keys
from tests.waiting import HANG_SECONDS, wait_for

PRIVATE = {"OAR_CALLBACK_PRIVATE": "true", "OAR_CALLBACK_RETRY": "0.05", "OAR_SWEEP_SECONDS": "0.05"}


class Receiver:
    """Notes what it is sent. Answers with the next of `statuses`, then with 204; `goes_on` holds its answers."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.calls: list[tuple[str, dict[str, str], bytes]] = []
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.note(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
                receiver.goes_on.wait(HANG_SECONDS)
                status = receiver.leave()
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.send_header("Set-Cookie", "a=b")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Not to stderr."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def note(self, path: str, headers: dict[str, str], body: bytes) -> None:
        with self._lock:
            self.calls.append((path, headers, body))
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)

    def leave(self) -> int:
        with self._lock:
            self._now -= 1
            return self.statuses.pop(0) if self.statuses else 204

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.goes_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def counted(server: LiveServer, outcome: str) -> float:
    text = server.client.get("/metrics").text
    (line,) = [line for line in text.splitlines() if line.startswith(f'oar_callbacks_total{{outcome="{outcome}"}}')]
    return float(line.split()[-1])


def check_signature(server: LiveServer, call: tuple[str, dict[str, str], bytes], key: str | None = None) -> None:
    secret = server.client.get("/v1/callbacks/secret", headers=bearer(key) if key else {}).json()["secret"]
    raw = base64.b64decode(secret.removeprefix("whsec_"))
    _, headers, body = call
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.digest(raw, signed, hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, weights_dir: Path) -> Iterator[LiveServer]:
    settings = {**PRIVATE, "OAR_CALLBACK_ATTEMPTS": "4"}
    with LiveServer(tmp_path_factory.mktemp("callbacks"), weights_dir, is_gated=True, **settings) as server:
        yield server


def test_an_end_is_told_signed_and_once(server: LiveServer) -> None:
    with Receiver() as receiver:
        job = server.submit(seed=7, callback_url=f"{receiver.url}/hook?a=b")
        (call,) = wait_for(lambda: receiver.calls)
        path, headers, body = call
        assert path == "/hook?a=b"
        assert headers["host"] == receiver.url.removeprefix("http://")
        assert headers["content-type"] == "application/json"
        assert headers["webhook-id"] == f"msg_{job['id']}"
        told = json.loads(body)
        assert told["type"] == "generation.completed"
        assert told["data"] == server.client.get(f"/v1/generations/{job['id']}").json()
        assert "callback" not in json.dumps(told["data"]), "an address may hold a secret"
        check_signature(server, call)
        wait_for(lambda: not waiting(server))
        assert len(receiver.calls) == 1


def waiting(server: LiveServer) -> int:
    with closing(Redis.from_url(EmbeddedRedis(server.data_dir / "data").url)) as redis:
        return redis.zcard("callbacks") + len(redis.keys("callback:*"))


def test_a_receiver_that_fails_is_called_again_with_the_same_words(server: LiveServer) -> None:
    with Receiver(500, 302, 429) as receiver:
        before = counted(server, "failed")
        server.submit(callback_url=receiver.url)
        wait_for(lambda: len(receiver.calls) == 4)
        wait_for(lambda: not waiting(server))
        assert len({(path, headers["webhook-id"], body) for path, headers, body in receiver.calls}) == 1
        assert "/elsewhere" not in {path for path, _, _ in receiver.calls}, "no redirect is followed"
        assert not any("cookie" in headers for _, headers, _ in receiver.calls)
        for call in receiver.calls:
            check_signature(server, call)
        assert counted(server, "failed") == before + 3


def test_a_receiver_that_never_answers_well_is_given_up(server: LiveServer) -> None:
    with Receiver(*[500] * 9) as receiver:
        before = counted(server, "given_up")
        server.submit(callback_url=receiver.url)
        wait_for(lambda: counted(server, "given_up") == before + 1)
        assert len(receiver.calls) == 4
    with Receiver(410) as receiver:
        server.submit(callback_url=receiver.url)
        wait_for(lambda: counted(server, "given_up") == before + 2)
        assert len(receiver.calls) == 1, "410 wants no more"
    assert not waiting(server)


@pytest.mark.running
def test_each_end_is_told_a_cancel_and_a_failure_too(server: LiveServer) -> None:
    with Receiver() as receiver:
        with server.held():
            canceled = server.submit(callback_url=receiver.url)["id"]
            late = server.submit(callback_url=receiver.url, deadline=0.1)["id"]
            server.client.delete(f"/v1/generations/{canceled}")
            wait_for(lambda: len(receiver.calls) == 2)
        told = {call["data"]["id"]: call for call in (json.loads(body) for _, _, body in receiver.calls)}
        assert told[canceled]["type"] == "generation.canceled"
        assert told[late]["type"] == "generation.failed"
        assert told[late]["data"]["error"]["code"] == "deadline_exceeded"


def test_one_tenant_has_a_bounded_number_under_way(server: LiveServer) -> None:
    with Receiver() as receiver:
        receiver.goes_on.clear()
        for _ in range(7):
            server.submit(callback_url=receiver.url)
        wait_for(lambda: len(receiver.calls) >= 4)
        server.wait_until_idle()
        assert receiver.most_at_once == 4
        receiver.goes_on.set()
        wait_for(lambda: not waiting(server))
        assert len({headers["webhook-id"] for _, headers, _ in receiver.calls}) == 7
        assert receiver.most_at_once == 4


def test_what_was_not_sent_outlives_the_process(tmp_path: Path, weights_dir: Path) -> None:
    with (
        LiveServer(tmp_path, weights_dir, **{**PRIVATE, "OAR_CALLBACK_RETRY": "1"}) as server,
        Receiver(500) as receiver,
    ):
        job_id = server.submit(callback_url=receiver.url)["id"]
        wait_for(lambda: receiver.calls)
        (api,) = server.children("api")
        os.kill(api, signal.SIGKILL)
        wait_for(lambda: len(receiver.calls) == 2)
        assert {headers["webhook-id"] for _, headers, _ in receiver.calls} == {f"msg_{job_id}"}


def test_a_private_address_is_refused_unless_it_is_allowed(live: LiveServer) -> None:
    for url in (
        "http://127.0.0.1:9/",
        "http://localhost/",
        "http://[::1]/",
        "http://169.254.169.254/latest",
        "ftp://a/",
    ):
        answer = live.post(callback_url=url)
        assert answer.status_code == 422, answer.text
        assert answer.json()["error"]["code"] == "invalid_callback_url"
    # A name that means loopback is found out when it is called.
    with Receiver() as receiver:
        port = receiver.url.rpartition(":")[2]
        before = counted(live, "given_up")
        accepted = live.post(callback_url=f"http://127.1:{port}/")
        assert accepted.status_code == 202, accepted.text
        wait_for(lambda: counted(live, "given_up") == before + 1)
        assert receiver.calls == []


def test_tenants_have_secrets_of_their_own(tmp_path: Path, weights_dir: Path) -> None:
    keys = write_keys(tmp_path)
    with LiveServer(tmp_path, weights_dir, OAR_API_KEYS=str(keys.path), **PRIVATE) as server, Receiver() as receiver:
        secrets = [
            server.client.get("/v1/callbacks/secret", headers=bearer(key)).json()["secret"]
            for key in (keys.one, keys.other)
        ]
        assert len(set(secrets)) == 2
        assert server.client.get("/v1/callbacks/secret").status_code == 401
        body = {"prompt": "a red circle", "callback_url": receiver.url}
        server.client.post("/v1/generations", json=body, headers=bearer(keys.other)).raise_for_status()
        (call,) = wait_for(lambda: receiver.calls)
        check_signature(server, call, keys.other)
        with pytest.raises(AssertionError):
            check_signature(server, call, keys.one)
