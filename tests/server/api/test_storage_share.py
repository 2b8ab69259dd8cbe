"""Over HTTP: a tenant that submits and cancels is stopped at its share of the memory, and nobody else is."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from oar_wire.model import ModelInfo, WorkerInfo
from server.jobs.connection import RedisConnection
from server.jobs.embedded import EmbeddedRedis
from server.jobs.store import Registry
from server.settings import Settings
from tests.server.api.test_app import BODY, code
from tests.server.api_thread import ApiThread
from tests.server.tenants import Keys, bearer, write_keys

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    limits = "rate = 0\nstorage_share = "
    return write_keys(tmp_path_factory.mktemp("tenants"), one=f"{limits}0.05", other=f"{limits}0.9")


@pytest.fixture(scope="module")
def url(redis_server: EmbeddedRedis, tenants: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = Settings(
        redis_url=redis_server.url,
        data_dir=tmp_path_factory.mktemp("api"),
        api_keys=tenants.path,
        registry_seconds=0,
        storage_mib=1,
        canceled_ttl=600,
    )
    with ApiThread(settings) as url:
        yield url


@pytest.fixture
async def client(url: str, connection: RedisConnection, model_info: ModelInfo) -> AsyncIterator[httpx.AsyncClient]:
    registry = Registry(connection)
    await registry.publish_models([model_info], {}, 600)
    await registry.workers.beat(WorkerInfo(name="test", models=("tiny",), slots=2, step_seconds=0.5), 600)
    async with httpx.AsyncClient(base_url=url, timeout=20) as client:
        yield client


async def test_submit_and_cancel_ends_at_the_share(client: httpx.AsyncClient, tenants: Keys) -> None:
    one, other = bearer(tenants.one), bearer(tenants.other)
    for _ in range(50):
        answer = await client.post("/v1/generations", json=BODY, headers=one)
        if answer.status_code != 202:
            break
        assert (await client.delete(answer.json()["url"], headers=one)).status_code == 200
    assert (answer.status_code, code(answer)) == (429, "storage_share_full")
    assert 1 <= int(answer.headers["Retry-After"]) <= 610, "when what was canceled first has expired"
    answer = await client.post("/v1/images/generations", json={"prompt": "a red circle", "n": 16}, headers=one)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "storage_share_full")
    assert (await client.post("/v1/generations", json=BODY, headers=other)).status_code == 202
