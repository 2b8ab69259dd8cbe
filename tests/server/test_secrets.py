"""No secret is written anywhere: not in a log of any process, not in the metrics, not in an answer."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from redis import Redis
from redis.exceptions import RedisError
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from server.jobs.embedded import find_binary
from tests.ports import free_port
from tests.server.live import LiveServer
from tests.server.tenants import bearer, protocols, write_keys
from tests.waiting import HANG_SECONDS, wait_for

PASSWORD = "correct-horse-battery"
METRICS_KEY = "a-key-of-the-metrics-alone"
LINK_SECRET = "a-secret-that-signs-links-and-nothing-else"
BODY = {"prompt": "a red circle", "steps": 2}


@dataclass(frozen=True)
class TlsRedis:
    url: str
    url_of_nobody: str  # the same, with a wrong password
    ca: Path


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


def make_certificates(folder: Path) -> None:
    """An authority, and a server's certificate for 127.0.0.1 and localhost."""
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    request = ("req", "-newkey", "rsa:2048", "-nodes")
    openssl(folder, *request, "-x509", "-days", "1", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem")
    openssl(folder, *request, "-subj", "/CN=redis", "-keyout", "tls.key", "-out", "tls.csr")
    authority = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial")
    openssl(folder, "x509", "-req", "-in", "tls.csr", *authority, "-days", "1", "-extfile", "names", "-out", "tls.crt")


@pytest.fixture(scope="module")
def tls_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsRedis]:
    """A Redis with TLS and a password; skipped where none on this machine speaks TLS."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificates, and is not installed")
    folder = tmp_path_factory.mktemp("tls")
    make_certificates(folder)
    port = free_port()
    redis, tried = None, []
    for binary in (shutil.which("redis-server"), str(find_binary())):
        if binary is None:
            continue
        command = [
            *(binary, "--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1", "--tls-auth-clients", "no"),
            *("--tls-cert-file", "tls.crt", "--tls-key-file", "tls.key", "--tls-ca-cert-file", "ca.pem"),
            *("--requirepass", PASSWORD, "--save", "", "--dir", str(folder)),
        ]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        url = f"rediss://:{PASSWORD}@127.0.0.1:{port}/0?ssl_ca_certs={folder}/ca.pem"
        if answers(url, process):
            redis = process
            break
        process.kill()
        tried.append(f"{binary}: {process.communicate()[0].strip().splitlines()[-1:]}")
    if redis is None:
        pytest.skip(f"no Redis here speaks TLS ({'; '.join(tried)})")
    yield TlsRedis(url, url.replace(PASSWORD, "wrong-horse-battery"), folder / "ca.pem")
    redis.terminate()
    redis.communicate()


def answers(url: str, process: "subprocess.Popen[str]") -> bool:
    """Whether it does, once it has started or ended."""

    def is_up() -> bool:
        with Redis.from_url(url) as client:
            try:
                return bool(client.ping())
            except (RedisError, OSError):
                return False

    return wait_for(lambda: process.poll() is not None or is_up()) and process.poll() is None


def try_socket(url: str, **options: object) -> None:
    with connect(url, open_timeout=HANG_SECONDS, **options) as socket:  # pyright: ignore[reportArgumentType]
        try:
            while True:
                socket.recv(timeout=HANG_SECONDS)
        except ConnectionClosed:
            return


def test_jobs_run_over_tls_with_a_password(tls_redis: TlsRedis, weights_dir: Path, tmp_path: Path) -> None:
    with LiveServer(tmp_path, weights_dir, REDIS_URL=tls_redis.url) as server:
        assert server.post(wait=60, steps=2).json()["status"] == "completed"
        assert f"redis: using REDIS_URL at 127.0.0.1:{httpx.URL(tls_redis.url).port}" in server.log.read_text()


def test_a_certificate_of_another_authority_is_not_trusted(tls_redis: TlsRedis) -> None:
    strange = tls_redis.url.partition("?")[0]
    with Redis.from_url(strange) as client, pytest.raises(RedisError, match="certificate"):
        client.ping()


def test_no_secret_is_written_anywhere(tls_redis: TlsRedis, tmp_path: Path, weights_dir: Path) -> None:
    """With the most talkative log: good keys and bad ones, in every place where a key may stand or stray."""
    keys = write_keys(tmp_path, one="rate = 0.001\nburst = 50")
    strays = {name: f"stray-{name}-0123456789" for name in ("header", "basic", "socket", "query", "body", "cookie")}
    settings = {
        "REDIS_URL": tls_redis.url,
        "OAR_API_KEYS": str(keys.path),
        "OAR_METRICS_KEY": METRICS_KEY,
        "OAR_LINK_SECRET": LINK_SECRET,
        "OAR_LOG_LEVEL": "debug",
    }
    answers: list[str] = []
    with LiveServer(tmp_path, weights_dir, **settings) as server:
        client, good = server.client, bearer(keys.one)
        job = client.post("/v1/generations", json=BODY, headers={**good, "Prefer": "wait=60"}).json()
        assert job["status"] == "completed"
        for key in (keys.one, keys.other, strays["socket"]):
            for options in ({"additional_headers": bearer(key)}, {"subprotocols": protocols(key)}):
                try_socket(server.socket_url(job["id"]), **options)
        for headers in (
            bearer(strays["header"]),
            {"Authorization": f"Basic {strays['basic']}"},
            {"Cookie": f"key={strays['cookie']}"},
            good,
            bearer(METRICS_KEY),
        ):
            for path in (job["url"], "/v1/nowhere", "/metrics", "/v1/models/none"):
                answers.append(client.get(path, headers=headers).text)
            answers.append(client.post("/v1/generations", json={"prompt": 3}, headers=headers).text)
            answers.append(client.post("/v1/images/edits", json=BODY, headers=headers).text)
        body = {**BODY, "response_format": "url"}
        link = client.post("/v1/images/generations", json=body, headers=good).json()["data"][0]["url"]
        assert client.get(link).status_code == 200
        assert client.get(link.replace("expires=", "expires=1")).status_code == 403
        answers.append(client.get(f"/v1/models?api_key={strays['query']}").text)
        answers.append(client.post("/v1/generations", content=strays["body"], headers=good).text)
        for _ in range(70):
            client.get("/v1/models", headers=good)
        metrics = client.get("/metrics?all=1", headers=bearer(METRICS_KEY)).text
        assert 'oar_tenant_requests_total{outcome="rate_limited",tenant="one"}' in metrics
        for pid in (*server.children("api"), *server.children("worker")):
            os.kill(pid, signal.SIGUSR1)  # the stacks of all threads, into the log
        for pid in server.children("api"):
            os.kill(pid, signal.SIGHUP)
        wait_for(lambda: server.log.read_text().count("API keys read tenants=2 keys=2") == 2)  # SIGHUP: once more
        wait_for(lambda: "Current thread" in server.log.read_text())  # it did write
        assert client.get("/v1/models", headers=bearer(keys.other)).status_code == 200
    log = server.log.read_text()
    encoded = [protocols(key)[1].removeprefix("oar.key.") for key in (keys.one, keys.other, strays["socket"])]
    signature = link.partition("&signature=")[2]
    for secret in (keys.one, keys.other, METRICS_KEY, LINK_SECRET, PASSWORD, signature, *strays.values(), *encoded):
        for place, text in (("log", log), ("metrics", metrics), *((f"answer {i}", a) for i, a in enumerate(answers))):
            assert secret not in text, place


def test_a_wrong_password_is_said_without_repeating_it(tls_redis: TlsRedis, tmp_path: Path) -> None:
    environment = {**os.environ, "REDIS_URL": tls_redis.url_of_nobody, "OAR_LOG_LEVEL": "debug", "OAR_PORT": "0"}
    log = tmp_path / "api.log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "oar_cli", "api"]
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        wait_for(lambda: "cannot sweep" in log.read_text())
    finally:
        process.terminate()
        process.wait(HANG_SECONDS)
    assert "wrong-horse-battery" not in log.read_text()
