"""A real server with a tiny model, and both clients.

Servers end with their module: tests of other folders look for processes that are left.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from oar_client import AsyncClient, Client, Patience
from server.jobs.embedded import EmbeddedRedis
from tests.client.blocking import Blocking, Loop
from tests.server.live import LiveServer
from tests.waiting import HANG_SECONDS

Open = Callable[..., Any]
QUICK = Patience(seconds=HANG_SECONDS, first_contact=1.0, first_pause=0.005, longest_pause=0.1)


@pytest.fixture(autouse=True)
def _no_inherited_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REDIS_URL", "OAR_URL", "OAR_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory, weights_dir: Path) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("live"), weights_dir, is_gated=True) as server:
        yield server


@pytest.fixture(scope="session")
def slow(tmp_path_factory: pytest.TempPathFactory, weights_dir: Path) -> Iterator[LiveServer]:
    """It paints one guided picture at a time, and can be held."""
    with LiveServer(tmp_path_factory.mktemp("slow"), weights_dir, is_gated=True, OAR_SLOTS="2") as server:
        yield server


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture(params=["sync", "async"])
def open_client(request: pytest.FixtureRequest, loop: Loop) -> Iterator[Open]:
    """`open_client(url, **options)`: either client, with the surface of the blocking one. All are closed at the end."""
    opened: list[Any] = []

    def open_one(url: str | None, **options: Any) -> Any:
        options = {"patience": QUICK, **options}
        if request.param == "sync":
            client: Any = Client(url, **options)
        else:
            client = Blocking(loop, loop.run(_make(url, options)))
        opened.append(client)
        return client

    yield open_one
    for client in opened:
        client.close()


async def _make(url: str | None, options: dict[str, Any]) -> AsyncClient:
    return AsyncClient(url, **options)


@pytest.fixture
def client(open_client: Open, live: LiveServer) -> Any:
    return open_client(live.url)
