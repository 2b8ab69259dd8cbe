"""Many clients at one moment: every socket is told the end of its job, and every request is answered."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from oar_wire.model import ModelInfo, WorkerInfo
from server.jobs.connection import RedisConnection
from server.jobs.embedded import EmbeddedRedis
from server.jobs.log import NewEvent
from server.jobs.store import Registry
from server.jobs.worker_queue import WorkerQueue
from server.settings import Settings
from tests.server.api.test_app import BODY, finish, take
from tests.server.api_thread import ApiThread
from tests.server.crowd import Crowd
from tests.server.jobs.protocol import run

pytestmark = pytest.mark.anyio

WATCHERS, READERS, SUBMITS = 150, 300, 150  # all of them more than the 100 that redis-py allows


@pytest.fixture(scope="module")
def url(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = Settings(redis_url=redis_server.url, data_dir=tmp_path_factory.mktemp("crowd"), queue_depth=1000)
    with ApiThread(settings) as url:
        yield url


@pytest.fixture
async def worker(connection: RedisConnection, settings: Settings, model_info: ModelInfo) -> WorkerQueue:
    registry = Registry(connection)
    await registry.publish_models([model_info], {}, 60)
    await registry.workers.beat(WorkerInfo(name="test", models=("tiny",), slots=2, step_seconds=0.5), 600)
    worker = WorkerQueue(connection, settings, "test", "tiny")
    await worker.open()
    return worker


@pytest.fixture
async def client(url: str, worker: WorkerQueue) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
        yield client


def socket_url(url: str, job_id: str) -> str:
    return f"{url.replace('http', 'ws')}/v1/generations/{job_id}/stream?after=0"


async def test_every_socket_on_one_job_is_told_its_end(
    client: httpx.AsyncClient, connection: RedisConnection, worker: WorkerQueue, url: str
) -> None:
    """A pool of 100 connections raised at the 101st command."""
    job_id = (await client.post("/v1/generations", json=BODY)).json()["id"]
    claim = await take(worker)
    seq = claim.seq
    crowd = Crowd()
    watching = asyncio.create_task(crowd.watch([socket_url(url, job_id)] * WATCHERS))
    for step in range(5):
        events = [NewEvent("patches", f'{{"image":0,"step":{step}}}'), NewEvent("preview", '{"image":0}')]
        seq, _ = await run(connection, worker.calls.emit(claim, seq, events))
        await asyncio.sleep(0.02)
    await finish(connection, worker, claim)
    await watching
    assert crowd.endings == {("completed", 1000): WATCHERS}


async def test_sockets_that_come_when_all_is_over_are_told_the_same(
    client: httpx.AsyncClient, connection: RedisConnection, worker: WorkerQueue, url: str
) -> None:
    """A replay of the whole log, for everybody at once: 189 of 300 were closed with 1013."""
    job_id = (await client.post("/v1/generations", json=BODY)).json()["id"]
    claim = await take(worker)
    events = [NewEvent("patches", f'{{"image":0,"step":{step}}}') for step in range(200)]
    await run(connection, worker.calls.emit(claim, claim.seq, events))
    await finish(connection, worker, claim)
    crowd = Crowd()
    await crowd.watch([socket_url(url, job_id)] * READERS)
    assert crowd.endings == {("completed", 1000): READERS}


async def test_submits_that_come_at_one_moment_are_all_accepted(client: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(client.post("/v1/generations", json=BODY) for _ in range(SUBMITS)))
    assert Counter(answer.status_code for answer in answers) == {202: SUBMITS}
