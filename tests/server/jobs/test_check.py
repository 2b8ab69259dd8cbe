"""Wrong starts: each is one sentence that says what is wrong and what is supported."""

import logging
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis

from oar_cli.settings_options import BadSetting, load_settings
from oar_wire.errors import RedisUnavailable
from server.jobs.check import RedisAway, RedisRefused, check_redis, wait_for_redis
from server.jobs.connection import RedisConnection
from server.jobs.embedded import EmbeddedRedis, find_binary
from tests.ports import free_port
from tests.waiting import HANG_SECONDS

TIMEOUT = 2.0


@contextmanager
def valkey(folder: Path, *options: str, config: str | None = None) -> Iterator[int]:
    """A server of our own on a TCP port."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    words = [str(find_binary())]
    if config is not None:
        path = folder / "valkey.conf"
        path.write_text(config)
        words.append(str(path))
    words += ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", *options]
    if "--sentinel" in options:
        words = [word for word in words if word not in ("--save", "")]
    with (folder / "valkey.log").open("wb") as log:
        process = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + HANG_SECONDS
        while True:
            assert process.poll() is None, (folder / "valkey.log").read_text()
            assert time.monotonic() < deadline
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Of a Redis with a password and users with too few rights."""
    with valkey(tmp_path_factory.mktemp("valkey"), "--requirepass", "secret") as port:
        with Redis(port=port, password="secret") as admin:
            users = {
                "noscript": ("~*", "+@all", "-@scripting"),
                "nokeys": ("~oar:*", "+@all"),
                "notime": ("~*", "+@read", "+@write", "+@stream", "+@scripting", "+@connection"),
                "enough": ("~*", "+@read", "+@write", "+@stream", "+@scripting", "+@connection", "+time"),
            }
            for name, rights in users.items():
                admin.execute_command("ACL", "SETUSER", name, "on", ">p", "resetchannels", *rights)
        yield port


@pytest.mark.parametrize(
    ("credentials", "path", "sentence"),
    [
        (":wrong@", "/0", "does not accept the user or password"),
        ("", "/0", "does not accept the user or password"),
        (":secret@", "/99", "names the database 99, which is not there"),
        ("noscript:p@", "/0", r"user may not do all that is needed .*script.*\+@scripting"),
        ("nokeys:p@", "/0", "user may not do all that is needed .*on all keys"),
        ("notime:p@", "/0", r"user may not do all that is needed \(TIME .*\+time"),
    ],
)
def test_who_may_not_use_it_is_told_why(port: int, credentials: str, path: str, sentence: str) -> None:
    with pytest.raises(RedisRefused, match=sentence):
        check_redis(f"redis://{credentials}127.0.0.1:{port}{path}", TIMEOUT)


@pytest.mark.parametrize("credentials", [":secret@", "enough:p@"])
def test_enough_rights_are_enough(port: int, credentials: str) -> None:
    check_redis(f"redis://{credentials}127.0.0.1:{port}/3", TIMEOUT, is_start=True)


def test_a_sentinel_is_no_redis(tmp_path: Path) -> None:
    with valkey(tmp_path, "--sentinel", config="") as port:
        for path in ("", "/0", "/1"):
            with pytest.raises(RedisRefused, match="names a Sentinel, which is not supported; name the master"):
                check_redis(f"redis://127.0.0.1:{port}{path}", TIMEOUT)


def test_a_cluster_is_not_supported(tmp_path: Path) -> None:
    with (
        valkey(tmp_path, "--cluster-enabled", "yes") as port,
        pytest.raises(RedisRefused, match="a node of a cluster, which is not supported"),
    ):
        check_redis(f"redis://127.0.0.1:{port}/0", TIMEOUT)


@contextmanager
def answering(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A TCP server that is no Redis."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    try:
                        talk(connection)
                    except OSError:
                        continue

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def test_what_is_no_redis_is_said() -> None:
    def http(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with answering(http) as port, pytest.raises(RedisRefused, match="does not speak Redis' protocol"):
        check_redis(f"redis://127.0.0.1:{port}/0", TIMEOUT)


def test_a_certificate_that_is_not_trusted(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate, and is not here")
    words = "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=127.0.0.1"
    command = ["openssl", *words.split(), "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")

    def tls(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as wrapped:
            wrapped.recv(100)

    with answering(tls) as port:
        with pytest.raises(RedisRefused, match=r"certificate .* is not trusted .*name its CA with \?ssl_ca_certs"):
            check_redis(f"rediss://127.0.0.1:{port}/0", TIMEOUT)
        with pytest.raises(RedisAway):
            check_redis(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={tmp_path / 'cert.pem'}", TIMEOUT)
    with pytest.raises(RedisRefused, match=r"\?ssl_ca_certs of REDIS_URL names /nowhere/ca.pem, which is not there"):
        check_redis("rediss://127.0.0.1:1/0?ssl_ca_certs=/nowhere/ca.pem", TIMEOUT)


def test_no_tls_where_it_is_wanted() -> None:
    def plain(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b"-ERR unknown command\r\n")

    with answering(plain) as port, pytest.raises(RedisRefused, match="no TLS with the server"):
        check_redis(f"rediss://127.0.0.1:{port}/0", TIMEOUT)


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:1/0", "redis://no.such.host.invalid/0", "unix:///nowhere/redis.sock"]
)
def test_one_that_is_away_may_come_back(url: str) -> None:
    with pytest.raises(RedisAway):
        check_redis(url, TIMEOUT)


def test_it_is_waited_for_with_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = EmbeddedRedis(tmp_path)
    with caplog.at_level(logging.WARNING, "server.jobs.check"):
        waiting = threading.Thread(target=wait_for_redis, args=(server.url, TIMEOUT))
        waiting.start()
        while not caplog.records:
            time.sleep(0.02)
        server.start()
        waiting.join(60)
        assert not waiting.is_alive()
    assert [record.message.partition(":")[0] for record in caplog.records] == ["waiting for Redis"]
    server.stop()


def test_what_may_lose_jobs_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with valkey(tmp_path, "--maxmemory-policy", "allkeys-lru") as port, caplog.at_level(logging.WARNING):
        check_redis(f"redis://127.0.0.1:{port}/0", TIMEOUT, is_start=True)
    assert caplog.messages == [
        "Redis may evict jobs: its maxmemory-policy is allkeys-lru, set noeviction",
        "Redis keeps no append-only file: jobs are lost when it ends, set appendonly yes",
    ]


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("redis://host/0?protocol=3", r"\?protocol is not for the URL to say"),
        ("redis://host/0?decode_responses=1", r"\?decode_responses is not for the URL"),
        ("redis://host/0?socket_timeout=1", r"\?socket_timeout is not for the URL"),
        ("redis://host/zero", "the database is a number"),
        ("unix:///run/redis.sock?db=x", "the database is a number"),
        ("reddis://host/0", "no URL of a Redis"),
        ("http://host:6379", "no URL of a Redis"),
    ],
)
def test_a_url_that_cannot_work_is_refused(monkeypatch: pytest.MonkeyPatch, url: str, sentence: str) -> None:
    """`?protocol=3` made replies of other shapes, which crashed the worker."""
    monkeypatch.setenv("REDIS_URL", url)
    with pytest.raises(BadSetting, match=rf"^REDIS_URL: .*{sentence}"):
        load_settings({})


@pytest.mark.parametrize("verb", [["serve", "--port", "0"], ["api", "--port", "0"], ["worker"], ["jobs", "list"]])
def test_every_verb_ends_with_78_where_no_retry_helps(port: int, tmp_path: Path, verb: list[str]) -> None:
    environment = {**os.environ, "REDIS_URL": f"redis://:wrong@127.0.0.1:{port}/0", "OAR_DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "oar_cli", *verb]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 78, done.stderr
    assert "does not accept the user or password" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.anyio
async def test_rights_that_are_taken_away_are_no_mistake_of_ours(port: int) -> None:
    """They were answered 500, with a traceback."""
    connection = RedisConnection(f"redis://noscript:p@127.0.0.1:{port}/0")
    with pytest.raises(RedisUnavailable, match="cannot be reached: Redis does not permit it"):
        await connection.again("SCRIPT", "LOAD", "return 1")
    await connection.close()
    connection = RedisConnection(f"redis://:wrong@127.0.0.1:{port}/0")
    with pytest.raises(RedisUnavailable, match="Redis does not accept the password"):
        await connection.again("GET", "x")
    await connection.close()
