"""Proxies that the environment names are for other hosts: nothing that runs here is asked for through one."""

import asyncio
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from oar_cli import main
from oar_client import AsyncClient, BadRequest, Client
from oar_wire.loopback import is_loopback_url
from tests.server.live import LiveServer

LOWER = ("http_proxy", "https_proxy", "all_proxy", "ws_proxy", "no_proxy")
NAMES = (*LOWER, *map(str.upper, LOWER))


class Refusing(http.server.BaseHTTPRequestHandler):
    """A proxy that knows no way, and remembers what it was asked for."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(502)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_CONNECT = do_DELETE = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What was asked of the proxy that `http_proxy` and its like name."""
    asked: list[str] = []
    handler = type("Handler", (Refusing,), {"asked": asked})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "ws_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_port}")
    yield asked
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def socks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")


@pytest.fixture(params=["proxy", "socks"])
def named(request: pytest.FixtureRequest) -> list[str]:
    return request.getfixturevalue(request.param) or []


def test_serve_asks_itself(named: list[str], tmp_path: Path, weights_dir: Path) -> None:
    """It printed no URL: the proxy was asked for /ready, for ever."""
    with LiveServer(tmp_path, weights_dir) as server:
        assert server.url.startswith("http://127.0.0.1:")
    assert named == []


def test_the_command_line_and_both_clients_ask_this_machine(named: list[str], live: LiveServer, tmp_path: Path) -> None:
    runner = CliRunner()
    words = ["generate", "a red circle", "--steps", "4", "--url", live.url, "-o", str(tmp_path / "out.png")]
    painted = runner.invoke(main, words)
    assert painted.exit_code == 0, painted.output
    top = runner.invoke(main, ["top", "--json", "--interval", "0.1", "--url", live.url])
    assert top.exit_code == 0, top.output
    localhost = live.url.replace("127.0.0.1", "localhost")
    with Client(localhost) as client:
        job = client.submit("a red circle", steps=4)
        assert [event.type for event in job.events()][-1] == "completed"
    asyncio.run(paint(localhost))
    assert named == []


async def paint(url: str) -> None:
    async with AsyncClient(url) as client:
        job = await client.submit("a red circle", steps=4)
        assert [event.type async for event in job.events()][-1] == "completed"


@pytest.mark.usefixtures("socks")
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_proxy_that_needs_more_is_said_so(kind: Any) -> None:
    with pytest.raises(BadRequest, match=r"SOCKS proxy .*pip install"):
        kind("http://pictures.example")


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_proxy_that_is_none_is_said_so(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "gopher://127.0.0.1:9")
    with pytest.raises(BadRequest, match="names a proxy that cannot be used"):
        kind("http://pictures.example")
    result = CliRunner().invoke(main, ["top", "--json", "--url", "http://pictures.example"])
    assert (result.exit_code, "cannot be used" in result.output) == (1, True)


def test_other_hosts_go_through_it(proxy: list[str]) -> None:
    result = CliRunner().invoke(main, ["top", "--json", "--url", "http://pictures.example"])
    assert (result.exit_code, proxy) == (75, ["http://pictures.example/metrics?all=1"])


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8000", True), ("http://127.8.8.8/oar", True), ("https://[::1]:1", True),
        ("http://localhost", True),
        ("http://a.localhost:1", True), ("http://10.0.0.1", False), ("http://localhost.example", False),
        ("http://127.0.0.1.example", False), ("http://[fe80::1]", False),
    ],
)  # fmt: skip
def test_what_this_machine_is_called(url: str, expected: bool) -> None:
    assert is_loopback_url(url) is expected
