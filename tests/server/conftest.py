"""Real parts: a real Valkey, a real server with a tiny model, real sockets."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from server.jobs.connection import RedisConnection
from server.jobs.embedded import EmbeddedRedis
from server.schemas.model import GenerationDefaults, ModelInfo
from server.settings import Settings
from tests.server.live import LiveServer
from tests.server.processes import find_processes
from tests.waiting import wait_for


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _no_inherited_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def settings(redis_server: EmbeddedRedis, tmp_path: Path) -> Settings:
    return Settings(
        redis_url=redis_server.url,
        data_dir=tmp_path,
        lease_seconds=600,
        result_ttl=600,
        tombstone_ttl=1200,
        registry_seconds=0,
    )


@pytest.fixture
async def connection(redis_server: EmbeddedRedis) -> AsyncIterator[RedisConnection]:
    connection = RedisConnection(redis_server.url)
    await connection.once("FLUSHALL")
    yield connection
    await connection.close()


@pytest.fixture
def model_info() -> ModelInfo:
    return ModelInfo(
        name="tiny",
        grid=(2, 3),
        image_size=(8, 12),
        orders=("raster", "random"),
        group_sizes=("cosine", "constant"),
        defaults=GenerationDefaults(steps=3),
    )


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory, weights_dir: Path) -> Iterator[LiveServer]:
    """One `oar serve` that the tests of the surface share."""
    with LiveServer(tmp_path_factory.mktemp("live"), weights_dir, is_gated=True) as server:
        yield server


@pytest.fixture(scope="session", autouse=True)
def _no_process_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Looked at after all other fixtures have ended; one that has let go of everything may still be ending.

    Another run of the tests on the same machine is not ours to look at.
    """
    yield
    folder = f"{tmp_path_factory.getbasetemp()}/"
    wait_for(lambda: not find_processes("server.jobs.guard", folder))
