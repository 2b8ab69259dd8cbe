"""A Redis that answers and takes no writes: what is there can be read, `/ready` says why, and submits are refused."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from oar_wire.errors import RateLimited, WritesRefused
from oar_wire.model import ModelInfo, WorkerInfo
from oar_wire.tenant import Tenant
from server.jobs import keys
from server.jobs.connection import RedisConnection
from server.jobs.embedded import EmbeddedRedis
from server.jobs.gauge import ExporterLease
from server.jobs.job import JobState
from server.jobs.limiter import RateLimiter
from server.jobs.probe import WriteProbe
from server.jobs.queue import JobQueue
from server.jobs.store import Registry
from server.settings import Settings
from tests.server.api.test_app import BODY, code, finish, take
from tests.server.api_thread import ApiThread
from tests.server.jobs.protocol import PARAMS, open_worker
from tests.server.tenants import Keys, bearer, protocols, write_keys

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """It is spoiled here, so nobody else may use it."""
    server = EmbeddedRedis(tmp_path_factory.mktemp("refusing"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Their requests are counted, which takes a write."""
    return write_keys(tmp_path_factory.mktemp("tenants"), one="rate = 20\nburst = 200")


@pytest.fixture(scope="module")
def url(own_redis: EmbeddedRedis, tenants: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("api")
    settings = Settings(redis_url=own_redis.url, data_dir=folder, api_keys=tenants.path, registry_seconds=0)
    with ApiThread(settings) as url:
        yield url


@pytest.fixture
async def redis(own_redis: EmbeddedRedis) -> AsyncIterator[RedisConnection]:
    connection = RedisConnection(own_redis.url)
    await connection.once("FLUSHALL")
    yield connection
    await connection.close()


@pytest.fixture
async def client(url: str, tenants: Keys) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=20, headers=bearer(tenants.one)) as client:
        yield client


@asynccontextmanager
async def full(redis: RedisConnection, _: Path) -> AsyncIterator[None]:
    await redis.once("CONFIG", "SET", "maxmemory", 1)
    try:
        yield
    finally:
        await redis.once("CONFIG", "SET", "maxmemory", 0)


@asynccontextmanager
async def unable_to_save(redis: RedisConnection, folder: Path) -> AsyncIterator[None]:
    """Where it would put its snapshot, there is a folder."""
    await redis.once("CONFIG", "SET", "save", "3600 1")
    (folder / "dump.rdb").mkdir()
    await redis.once("BGSAVE")
    while b"rdb_last_bgsave_status:err" not in await redis.once("INFO", "persistence"):
        await asyncio.sleep(0.02)
    try:
        yield
    finally:
        (folder / "dump.rdb").rmdir()
        await redis.once("SAVE")
        await redis.once("CONFIG", "SET", "save", "")
        (folder / "dump.rdb").unlink()


@asynccontextmanager
async def a_replica(redis: RedisConnection, _: Path) -> AsyncIterator[None]:
    """Of a server that is not there, as after a failover."""
    await redis.once("REPLICAOF", "127.0.0.1", 1)
    try:
        yield
    finally:
        await redis.once("REPLICAOF", "NO", "ONE")


STATES = {full: "its memory is full", unable_to_save: "it cannot save to its disk", a_replica: "it is a replica"}
spoilt = pytest.mark.parametrize("state", list(STATES), ids=lambda state: state.__name__)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    while not await condition():
        await asyncio.sleep(0.05)


async def paint(client: httpx.AsyncClient, redis: RedisConnection, settings: Settings, model_info: ModelInfo) -> Any:
    """A finished job, and one that waits; a worker lives."""
    registry = Registry(redis)
    await registry.publish_models([model_info], {}, 60)
    await registry.workers.beat(WorkerInfo(name="gone", models=("tiny",), slots=2), 0.001)
    await registry.workers.beat(WorkerInfo(name="test", models=("tiny",), slots=2, step_seconds=0.5), 600)
    worker = await open_worker(redis, settings)
    finished = (await client.post("/v1/generations", json=BODY)).json()
    await finish(redis, worker, await take(worker))
    return finished, (await client.post("/v1/generations", json=BODY)).json()


@spoilt
async def test_what_is_there_can_be_read_and_nothing_new_is_taken(
    state: Callable[..., Any],
    client: httpx.AsyncClient,
    own_redis: EmbeddedRedis,
    redis: RedisConnection,
    settings: Settings,
    model_info: ModelInfo,
    tenants: Keys,
    url: str,
) -> None:
    finished, waiting = await paint(client, redis, settings, model_info)
    assert "oar_redis_writable 1.0" in (await client.get("/metrics")).text
    assert (await client.get("/ready")).status_code == 200
    async with state(redis, own_redis.folder):

        async def is_unready() -> bool:
            return (await client.get("/ready")).status_code == 503

        await until(is_unready)
        answer = await client.get("/ready")
        assert code(answer) == "writes_refused"
        assert STATES[state] in answer.json()["error"]["message"]
        assert int(answer.headers["Retry-After"]) >= 1

        assert (await client.get(finished["url"])).json()["status"] == "completed"
        job = (await client.get(waiting["url"])).json()
        assert (job["status"], job["position"]) == ("queued", 0)
        assert job["eta"] > 0
        assert (await client.get(f"{finished['url']}/images/0?metadata=false")).content == b"png"
        assert "event: completed" in (await client.get(finished["events_url"])).text
        socket_url = url.replace("http", "ws") + finished["stream_url"]
        async with connect(socket_url, subprotocols=protocols(tenants.one)) as socket:  # pyright: ignore
            types = [json.loads(frame)["type"] async for frame in socket]
        assert types == ["queued", "started", "completed"]
        assert [model["id"] for model in (await client.get("/v1/models")).json()["data"]] == ["tiny"]
        metrics = (await client.get("/metrics")).text
        assert 'oar_queue_depth{model="tiny"} 1.0' in metrics
        assert "oar_redis_up 1.0" in metrics
        assert "oar_redis_writable 0.0" in metrics

        for method, path, body in (
            ("POST", "/v1/generations", BODY),
            ("POST", "/v1/images/generations", {"prompt": "a red circle"}),
        ):
            answer = await client.request(method, path, json=body)
            assert (answer.status_code, code(answer)) == (503, "writes_refused")
            assert STATES[state] in answer.json()["error"]["message"]
            assert int(answer.headers["Retry-After"]) >= 1
        assert await redis.once("SCARD", keys.share_key("tiny", "one")) == 1, "nothing of them is left"

    async def is_ready() -> bool:
        return (await client.get("/ready")).status_code == 200

    await until(is_ready)
    assert (await client.post("/v1/generations", json=BODY)).status_code == 202


async def test_a_job_that_waits_can_be_canceled_when_the_memory_is_full(
    client: httpx.AsyncClient,
    own_redis: EmbeddedRedis,
    redis: RedisConnection,
    settings: Settings,
    model_info: ModelInfo,
) -> None:
    """It makes room."""
    _, waiting = await paint(client, redis, settings, model_info)
    async with full(redis, own_redis.folder):
        answer = await client.delete(waiting["url"])
        assert (answer.status_code, answer.json()["status"]) == (200, "canceled")
        assert (await JobQueue(redis, settings).load(waiting["id"])).state is JobState.CANCELED


@spoilt
async def test_requests_are_counted_by_each_process_meanwhile(
    state: Callable[..., Any], own_redis: EmbeddedRedis, redis: RedisConnection
) -> None:
    limiter, tenant = RateLimiter(redis), Tenant(name="slow", rate=0.01, burst=3)
    async with state(redis, own_redis.folder):
        for _ in range(3):
            await limiter.take(tenant)
        for _ in range(2):
            with pytest.raises(RateLimited) as caught:
                await limiter.take(tenant)
            assert caught.value.retry_after is not None
            assert 0 < caught.value.retry_after <= 100
        await limiter.take(Tenant(name="other", rate=0.01, burst=3))


async def test_the_process_that_spoke_for_the_queue_goes_on(own_redis: EmbeddedRedis, redis: RedisConnection) -> None:
    speaker, other = ExporterLease(redis, 30), ExporterLease(redis, 30)
    assert (await speaker.hold(), await other.hold()) == (True, False)
    async with a_replica(redis, own_redis.folder):
        assert (await speaker.hold(), await other.hold()) == (True, False)


async def test_the_probe_asks_no_more_often_than_it_should(own_redis: EmbeddedRedis, redis: RedisConnection) -> None:
    probe = WriteProbe(redis, seconds=600)
    async with full(redis, own_redis.folder):
        outcomes = await asyncio.gather(*(probe.check() for _ in range(20)), return_exceptions=True)
        assert all(isinstance(outcome, WritesRefused) for outcome in outcomes)
    with pytest.raises(WritesRefused, match="its memory is full"):
        await probe.check()
    await WriteProbe(redis, seconds=0).check()


async def test_a_job_is_refused_as_a_whole(
    own_redis: EmbeddedRedis, redis: RedisConnection, settings: Settings
) -> None:
    """Nothing of it was written before Redis refused the rest, not even its source."""

    async def written() -> list[bytes]:
        """Without what the API writes by itself, when it likes."""
        own = {key.encode() for key in (keys.SWEEPER, keys.DATA_ID, keys.DATA_LOST)}
        return sorted(key for key in await redis.once("KEYS", "*") if key not in own)

    before = await written()
    for state in STATES:
        async with state(redis, own_redis.folder):
            with pytest.raises(WritesRefused):
                await JobQueue(redis, settings).submit(PARAMS, source=b"a png")
            assert await written() == before
