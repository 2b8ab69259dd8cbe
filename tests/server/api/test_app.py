"""The API alone, with this test as the worker: overload, outage, expiry, places in the queue."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from server.api.app import create_app
from server.jobs import scripts
from server.jobs.connection import RedisConnection
from server.jobs.embedded import EmbeddedRedis
from server.jobs.job import JobState
from server.jobs.queue import Claim, WorkerQueue
from server.jobs.store import Registry
from server.schemas.events import Completed
from server.schemas.generation import ImageLink
from server.schemas.model import ModelInfo, WorkerInfo
from server.settings import Settings

pytestmark = pytest.mark.anyio

BODY = {"prompt": "a red circle", "seed": 7}
LIMITS = {"queue_depth": 3, "result_ttl": 1.0, "max_sockets": 2, "socket_idle": 0.4, "command_timeout": 1.0}


class ApiThread:
    def __init__(self, settings: Settings) -> None:
        config = uvicorn.Config(create_app(settings), port=0, log_level="error", lifespan="on")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)

    def __enter__(self) -> str:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.01)
        host, port = self._server.servers[0].sockets[0].getsockname()
        return f"http://{host}:{port}"

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()


@pytest.fixture(scope="module")
def url(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = Settings(redis_url=redis_server.url, data_dir=tmp_path_factory.mktemp("api"), **LIMITS)
    with ApiThread(settings) as url:
        yield url


@pytest.fixture
async def client(url: str, connection: RedisConnection) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=10) as client:
        yield client


@pytest.fixture
async def worker(connection: RedisConnection, settings: Settings, model_info: ModelInfo) -> WorkerQueue:
    registry = Registry(connection)
    await registry.publish_models([model_info], {})
    await registry.beat(WorkerInfo(name="test", models=("tiny",), slots=2, step_seconds=0.5), 5)
    worker = WorkerQueue(connection, settings.model_copy(update=LIMITS), "test", "tiny")
    await worker.open()
    return worker


async def take(worker: WorkerQueue) -> Claim:
    item = await worker.take(1)
    assert item is not None
    claim = await worker.claim(*item)
    assert claim is not None
    return claim


async def finish(connection: RedisConnection, worker: WorkerQueue, claim: Claim) -> None:
    body = Completed(images=(ImageLink(index=0, url="/x"),), seconds=1).body()
    await scripts.run_many(connection, [worker.finish_call(claim, JobState.COMPLETED, body, [b"png"])])


async def frames(url: str, job_id: str, after: int = 0) -> tuple[list[dict[str, Any]], int | None]:
    """All frames and the close code."""
    received: list[dict[str, Any]] = []
    async with connect(f"{url.replace('http', 'ws')}/v1/generations/{job_id}/stream?after={after}") as socket:
        with contextlib.suppress(ConnectionClosed):
            while True:
                received.append(json.loads(await socket.recv()))
    return received, socket.close_code


def code(answer: httpx.Response) -> str:
    return answer.json()["error"]["code"]


async def test_place_and_eta_come_from_the_known_lengths(client: httpx.AsyncClient, worker: WorkerQueue) -> None:
    answers = [(await client.post("/v1/generations", json={**BODY, "steps": 4})).json() for _ in range(3)]
    assert [answer["position"] for answer in answers] == [0, 1, 2]
    # 4 steps of 0.5 s each, and half of the row-steps ahead: there are two slots.
    assert [answer["eta"] for answer in answers] == [2.0, 3.0, 4.0]


async def test_overload_is_told_quickly_and_says_when_to_come_back(
    client: httpx.AsyncClient, connection: RedisConnection, worker: WorkerQueue
) -> None:
    for _ in range(3):
        assert (await client.post("/v1/generations", json=BODY)).status_code == 202
    refused = await client.post("/v1/generations", json=BODY)
    assert (refused.status_code, code(refused), refused.headers["Retry-After"]) == (429, "queue_full", "1")
    await finish(connection, worker, await take(worker))
    assert (await client.post("/v1/generations", json=BODY)).status_code == 202


async def test_prefer_wait_gives_up_with_202(client: httpx.AsyncClient, worker: WorkerQueue) -> None:
    start = time.monotonic()
    answer = await client.post("/v1/generations", json=BODY, headers={"Prefer": "respond-async, wait=1"})
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    assert 0.9 < time.monotonic() - start < 3


async def test_prefer_wait_answers_as_soon_as_the_job_ends(
    client: httpx.AsyncClient, connection: RedisConnection, worker: WorkerQueue
) -> None:
    waiting = asyncio.create_task(client.post("/v1/generations", json=BODY, headers={"Prefer": "wait=10"}))
    start = time.monotonic()
    await finish(connection, worker, await take(worker))
    assert (await waiting).status_code == 200
    assert time.monotonic() - start < 3


async def test_an_expired_job_is_gone_not_unknown(
    client: httpx.AsyncClient, connection: RedisConnection, worker: WorkerQueue, url: str
) -> None:
    job = (await client.post("/v1/generations", json=BODY)).json()
    await finish(connection, worker, await take(worker))
    assert (await client.get(f"{job['url']}/images/0?metadata=false")).content == b"png"
    await asyncio.sleep(LIMITS["result_ttl"] + 0.2)
    for path in (job["url"], f"{job['url']}/images/0"):
        answer = await client.get(path)
        assert (answer.status_code, code(answer)) == (410, "job_expired")
    (frame,), close_code = await frames(url, job["id"])
    assert (frame["error"]["code"], close_code) == ("job_expired", 4410)


async def test_a_live_stream_follows_the_log(
    client: httpx.AsyncClient, connection: RedisConnection, worker: WorkerQueue, url: str
) -> None:
    job = (await client.post("/v1/generations", json=BODY)).json()
    reading = asyncio.create_task(frames(url, job["id"]))
    claim = await take(worker)
    for seq in range(2, 5):
        await asyncio.sleep(0.05)
        await scripts.run_many(connection, [worker.emit_call(claim, seq, [("patches", '{"image":0}')])])
    await finish(connection, worker, claim)
    events, close_code = await reading
    assert [event["type"] for event in events] == ["queued", "started", "patches", "patches", "patches", "completed"]
    assert [event["seq"] for event in events] == [1, 2, 3, 4, 5, 6]
    assert {event["job_id"] for event in events} == {job["id"]}
    assert close_code == 1000


async def test_a_socket_without_events_is_closed_to_be_opened_again(
    client: httpx.AsyncClient, worker: WorkerQueue, url: str
) -> None:
    job = (await client.post("/v1/generations", json=BODY)).json()
    events, close_code = await frames(url, job["id"])
    assert ([event["type"] for event in events], close_code) == (["queued"], 1013)


async def test_sockets_are_limited(client: httpx.AsyncClient, worker: WorkerQueue, url: str) -> None:
    job = (await client.post("/v1/generations", json=BODY)).json()
    results = await asyncio.gather(*(frames(url, job["id"]) for _ in range(3)))
    codes = sorted(frame["error"]["code"] for events, _ in results for frame in events if "error" in frame)
    assert codes == ["too_many_sockets"]
    await asyncio.sleep(0.1)
    assert "error" not in (await frames(url, job["id"]))[0][0], "closed sockets no longer count"


async def test_no_model_yet_is_not_an_unknown_model(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/generations", json=BODY)
    assert (answer.status_code, code(answer), answer.headers["Retry-After"]) == (503, "model_not_ready", "2")
    assert (await client.get("/ready")).status_code == 503


async def test_a_restarted_api_knows_the_models_though_no_worker_lives(
    client: httpx.AsyncClient, connection: RedisConnection, worker: WorkerQueue
) -> None:
    await Registry(connection).leave("test")
    assert (await client.post("/v1/generations", json=BODY)).status_code == 202
    assert (await client.get("/ready")).status_code == 503


async def test_a_silent_worker_is_not_ready(
    client: httpx.AsyncClient, connection: RedisConnection, model_info: ModelInfo
) -> None:
    registry = Registry(connection)
    await registry.publish_models([model_info], {})
    await registry.beat(WorkerInfo(name="test", models=("tiny",), slots=2), 0.2)
    assert (await client.get("/ready")).status_code == 200
    await asyncio.sleep(0.3)
    assert (await client.get("/ready")).status_code == 503


async def test_without_redis_the_api_lives_and_says_so(tmp_path: Path, model_info: ModelInfo) -> None:
    server = EmbeddedRedis(tmp_path)
    server.start()
    connection = RedisConnection(server.url)
    registry = Registry(connection)
    await registry.publish_models([model_info], {})
    with ApiThread(Settings(redis_url=server.url, **LIMITS)) as url:
        async with httpx.AsyncClient(base_url=url, timeout=10) as client:
            job = (await client.post("/v1/generations", json=BODY)).json()
            reading = asyncio.create_task(frames(url, job["id"]))
            await asyncio.sleep(0.1)
            await connection.close()
            server.stop()
            received, close_code = await reading
            assert (received[-1]["error"]["code"], close_code) == ("redis_unavailable", 1013)
            for answer in (await client.post("/v1/generations", json=BODY), await client.get(job["url"]),
                           await client.get("/ready"), await client.delete(job["url"])):  # fmt: skip
                assert (answer.status_code, code(answer)) == (503, "redis_unavailable")
                assert int(answer.headers["Retry-After"]) >= 1
            assert (await client.get("/live")).status_code == 200
            assert (await client.get("/metrics")).status_code == 200
            server.start()
            assert (await client.get(job["url"])).json()["status"] == "queued", "the job survived"
    server.stop()
