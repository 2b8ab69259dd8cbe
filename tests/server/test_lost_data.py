"""Redis that loses its data while a worker draws and clients watch: it heals by itself, and everybody is told."""

import asyncio
import contextlib
import json
import logging
import shutil
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from oar_wire.errors import JobNotFound
from oar_wire.model import ModelInfo, WorkerInfo
from server.jobs import keys
from server.jobs.admission import Admission
from server.jobs.connection import RedisConnection
from server.jobs.embedded import EmbeddedRedis
from server.jobs.events import EventLog
from server.jobs.job import JobState
from server.jobs.queue import JobQueue
from server.jobs.store import Registry
from server.settings import Settings
from server.worker.engine_thread import EngineThread
from server.worker.models import load_models
from server.worker.worker import Worker
from tests.server.api_thread import ApiThread
from tests.server.jobs.protocol import params
from tests.server.tiny import NUM_TOKENS
from tests.server.uploads import encode, mask, picture

pytestmark = pytest.mark.anyio

LONG = params(n=1, steps=NUM_TOKENS, order="raster")
BODY = {"prompt": "a red circle", "steps": NUM_TOKENS}


class HeldEngine:
    """Engine steps wait for a permit each, so that a job runs for as long as the test wants."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._permits = threading.Semaphore(0)
        self._is_held = True
        original = EngineThread._step

        def step(thread: EngineThread, name: str, engine: Any) -> None:
            while self._is_held and not self._permits.acquire(timeout=0.02):
                pass
            original(thread, name, engine)

        monkeypatch.setattr(EngineThread, "_step", step)

    def step(self) -> None:
        self._permits.release()

    def let_go(self) -> None:
        self._is_held = False


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> HeldEngine:
    return HeldEngine(monkeypatch)


@asynccontextmanager
async def worker_of(settings: Settings) -> AsyncIterator[Worker]:
    connection = RedisConnection(str(settings.redis_url))
    worker = Worker(settings, connection, "w", load_models(settings))
    ready = asyncio.Event()
    run = asyncio.create_task(worker.run(ready.set))
    await asyncio.wait([run, asyncio.create_task(ready.wait())], return_when=asyncio.FIRST_COMPLETED)
    try:
        yield worker
    finally:
        worker.stop()
        await asyncio.wait([run])
        await connection.close()
    run.result()


def options_of(url: str, folder: Path, weights_dir: Path) -> Settings:
    return Settings(
        redis_url=url, data_dir=folder, weights_dir=weights_dir, lease_seconds=1.5, drain_seconds=0, registry_seconds=0
    )


async def until(condition: Any, seconds: float = 60) -> Any:
    async with asyncio.timeout(seconds):
        while not (value := await condition()):
            await asyncio.sleep(0.02)
    return value


async def frames(url: str, job_id: str) -> tuple[list[dict[str, Any]], int | None]:
    received: list[dict[str, Any]] = []
    async with connect(f"{url.replace('http', 'ws')}/v1/generations/{job_id}/stream?after=0") as socket:
        with contextlib.suppress(ConnectionClosed):
            while True:
                received.append(json.loads(await socket.recv()))
    return received, socket.close_code


async def is_running(queue: JobQueue, log: EventLog, job_id: str) -> bool:
    return (await queue.load(job_id)).state is JobState.RUNNING and len(await log.read_checkpoint(job_id)) > 0


@pytest.mark.running
async def test_a_worker_publishes_again_and_ends_what_it_held(
    connection: RedisConnection,
    settings: Settings,
    tmp_path: Path,
    weights_dir: Path,
    engine: HeldEngine,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Models were published once, so that nothing was accepted until somebody restarted the workers."""
    options = options_of(str(settings.redis_url), tmp_path, weights_dir)
    queue, log, registry = JobQueue(connection, options), EventLog(connection), Registry(connection)
    async with worker_of(options) as worker:
        await until(registry.models)
        job_id = (await queue.submit(LONG)).job_id
        engine.step()
        await until(lambda: is_running(queue, log, job_id))
        seq = (await queue.load(job_id)).seq
        with caplog.at_level(logging.WARNING):
            await connection.once("FLUSHALL")
            await until(registry.models)
            assert await until(registry.default_model) == "tiny"
            assert await until(registry.workers.alive)

            async def ended() -> bool:
                with contextlib.suppress(JobNotFound):
                    return (await queue.load(job_id)).state.is_terminal
                return False

            await until(ended)
        assert "Redis has lost its data: 1 jobs were known here" in caplog.messages
        job = await queue.load(job_id)
        assert (job.state, json.loads(job.result)["error"]["code"]) == (JobState.FAILED, "data_lost")
        (event,) = await log.read_all(job_id)
        assert (event.type, event.seq) == ("failed", job.seq)
        assert event.seq > seq, "whoever has seen the older events is told of it"
        assert worker.jobs == (), "nobody draws it any more"
        engine.let_go()
        new = (await queue.submit(LONG)).job_id

        async def completed() -> bool:
            return (await queue.load(new)).state is JobState.COMPLETED

        await until(completed)


async def test_a_model_that_was_evicted_is_published_again(
    connection: RedisConnection, settings: Settings, tmp_path: Path, weights_dir: Path
) -> None:
    options = options_of(str(settings.redis_url), tmp_path, weights_dir)
    registry = Registry(connection)
    async with worker_of(options):
        for name in (keys.model_key("tiny"), keys.text_tokenizer_key("tiny"), keys.MODELS, keys.DEFAULT_MODEL):
            await connection.once("DEL", name)
            await until(registry.models)
            await until(registry.default_model)
            assert await until(lambda: registry.text_tokenizer("tiny"))
    assert (await registry.models())[0].name == "tiny", "it is still known for a while"
    assert 0 < await connection.once("PTTL", keys.model_key("tiny")) <= 1000 * (1.5 + options.model_grace)


@pytest.mark.running
async def test_whoever_watches_is_told(
    connection: RedisConnection, settings: Settings, tmp_path: Path, weights_dir: Path, engine: HeldEngine
) -> None:
    """One job runs and one waits: the first fails, the second is gone, and both sockets are closed for good."""
    options = options_of(str(settings.redis_url), tmp_path, weights_dir).model_copy(update={"slots": 2})
    queue, log = JobQueue(connection, options), EventLog(connection)
    async with worker_of(options):
        api = ApiThread(options)
        with api as url:
            async with httpx.AsyncClient(base_url=url, timeout=20) as client:

                async def submit() -> Any:
                    answer = await client.post("/v1/generations", json={**BODY, "guidance": 2.0})
                    return answer.json().get("id")

                running, waiting = await until(submit), await until(submit)
                engine.step()
                await until(lambda: is_running(queue, log, running))
                sockets = [asyncio.create_task(frames(url, job_id)) for job_id in (running, waiting)]
                waited = asyncio.create_task(
                    client.post("/v1/generations", json={**BODY, "guidance": 2.0}, headers={"Prefer": "wait=60"})
                )

                async def are_watched() -> bool:
                    return api.app.state.services.hub.num_watched == 3

                await until(are_watched)
                await connection.once("FLUSHALL")
                (seen, seen_code), (lost, lost_code) = await asyncio.gather(*sockets)
                assert (seen[-1]["type"], seen[-1]["error"]["code"], seen_code) == ("failed", "data_lost", 1000)
                assert (lost[-1]["error"]["code"], lost_code) == ("job_lost", 4410)
                answer = await waited
                assert (answer.status_code, answer.json()["error"]["code"]) == (503, "job_lost")
                told = (await client.get(f"/v1/generations/{running}")).json()
                assert (told["status"], told["error"]["code"]) == ("failed", "data_lost")
                unknown = await client.get(f"/v1/generations/{waiting}")
                assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "job_not_found")
                assert "Redis lost its data at" in unknown.json()["error"]["message"]
                engine.let_go()
                accepted = await until(submit)
                assert (await frames(url, accepted))[0][-1]["type"] == "completed"


@pytest.mark.running
async def test_a_redis_that_comes_back_with_an_empty_folder(tmp_path: Path, weights_dir: Path) -> None:
    """As after a new volume."""
    server = EmbeddedRedis(tmp_path / "redis")
    server.start()
    connection = RedisConnection(server.url)
    options = options_of(server.url, tmp_path, weights_dir)
    registry, queue = Registry(connection), JobQueue(connection, options)
    try:
        async with worker_of(options):
            await until(registry.models)
            await asyncio.to_thread(server.stop)
            shutil.rmtree(server.folder)
            await asyncio.to_thread(server.start)

            async def is_back() -> Any:
                return await connection.is_alive() and await registry.models() and await registry.workers.alive()

            await until(is_back)
            job_id = (await queue.submit(LONG)).job_id

            async def completed() -> bool:
                return (await queue.load(job_id)).state is JobState.COMPLETED

            await until(completed)
    finally:
        await connection.close()
        server.stop()


@pytest.fixture
async def served(connection: RedisConnection, model_info: ModelInfo) -> Registry:
    registry = Registry(connection)
    await registry.publish_models([model_info], {}, 600)
    await registry.workers.beat(WorkerInfo(name="test", models=("tiny",), slots=2), 60)
    return registry


SMALL = {"prompt": "a red circle"}
FORM: dict[str, Any] = {
    "data": SMALL,
    "files": {"image": encode(picture((12, 8))), "mask": encode(mask((12, 8), (2, 2, 9, 7)))},
}
WAIT = {"headers": {"Prefer": "wait=60"}}
AT_ONCE: dict[str, tuple[str, dict[str, Any]]] = {
    "a generation": ("/v1/generations", {"json": SMALL}),
    "an edit": ("/v1/edits", FORM),
}
SUBMITS: dict[str, tuple[str, dict[str, Any]]] = {
    "waited for": ("/v1/generations", {"json": SMALL, **WAIT}),
    "an edit that is waited for": ("/v1/edits", {**FORM, **WAIT}),
    "as OpenAI's clients": ("/v1/images/generations", {"json": SMALL}),
    "as OpenAI's edits": ("/v1/images/edits", FORM),
}


@pytest.fixture
def _loses_what_it_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    submit = Admission.submit

    async def submit_and_lose(self: Admission, *args: Any, **options: Any) -> Any:
        accepted = await submit(self, *args, **options)
        await self._connection.once("FLUSHALL")
        return accepted

    monkeypatch.setattr(Admission, "submit", submit_and_lose)


@pytest.mark.usefixtures("served", "_loses_what_it_accepts")
@pytest.mark.parametrize("kind", SUBMITS)
async def test_a_job_that_is_lost_before_it_is_answered(settings: Settings, kind: str) -> None:
    """Its client knows no id: `410 job_expired` and `404 job_not_found` told of a job that it had never heard of."""
    path, request = SUBMITS[kind]
    with ApiThread(settings) as url:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            answer = await client.post(path, **request)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "job_lost")
    assert answer.headers["Retry-After"]


@pytest.mark.usefixtures("served", "_loses_what_it_accepts")
async def test_a_stream_of_a_job_that_is_lost_ends_with_an_error(settings: Settings) -> None:
    with ApiThread(settings) as url:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            answer = await client.post("/v1/images/generations", json={**SMALL, "stream": True})
    (data,) = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert json.loads(data)["error"]["code"] == "job_lost"


@pytest.mark.usefixtures("served", "_loses_what_it_accepts")
@pytest.mark.parametrize("kind", AT_ONCE)
async def test_what_is_answered_at_once_is_as_it_was_accepted(settings: Settings, kind: str) -> None:
    """The answer is that of the script which accepted it; a loss right after it is one like any later."""
    path, request = AT_ONCE[kind]
    with ApiThread(settings) as url:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            answer = await client.post(path, **request)
            assert (answer.status_code, answer.json()["status"], answer.json()["position"]) == (202, "queued", 0)
            look = await client.get(answer.json()["url"])
    assert (look.status_code, look.json()["error"]["code"]) == (404, "job_not_found")


async def test_a_job_that_is_lost_while_it_is_canceled_is_unknown(
    connection: RedisConnection, settings: Settings, served: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was said to have expired, which it had not."""
    load = JobQueue.load
    is_lost = False

    async def load_and_lose(self: JobQueue, job_id: str) -> Any:
        nonlocal is_lost
        job = await load(self, job_id)
        if not is_lost:
            is_lost = True
            await self._connection.once("FLUSHALL")
        return job

    job_id = (await JobQueue(connection, settings).submit(params())).job_id
    monkeypatch.setattr(JobQueue, "load", load_and_lose)
    with ApiThread(settings) as url:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            answer = await client.delete(f"/v1/generations/{job_id}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "job_not_found")


async def test_a_named_model_is_awaited_after_a_loss(
    connection: RedisConnection, settings: Settings, served: Registry, model_info: ModelInfo
) -> None:
    """Until its worker has published it again it was 404, which no client tries again."""
    api = ApiThread(settings)
    with api as url:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:

            async def is_watched() -> bool:
                return api.app.state.services.data._id is not None

            await until(is_watched)
            named = {**SMALL, "model": "tiny"}
            assert (await client.post("/v1/generations", json=named)).status_code == 202
            unknown = await client.post("/v1/generations", json={**SMALL, "model": "other"})
            assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
            await connection.once("FLUSHALL")
            for path, body in (
                ("/v1/generations", named),
                ("/v1/images/generations", named),
                ("/v1/generations", SMALL),
            ):
                answer = await client.post(path, json=body)
                assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_not_ready")
            await served.publish_models([model_info], {}, 600)
            await served.workers.beat(WorkerInfo(name="test", models=("tiny",), slots=2), 60)
            assert (await client.post("/v1/generations", json=named)).status_code == 202


async def test_a_job_that_ends_while_it_is_looked_for_has_not_expired(
    connection: RedisConnection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker wrote its end, and its tombstone, between the two reads."""
    queue = JobQueue(connection, settings)
    job_id = (await queue.submit(params())).job_id
    kept = await connection.once("DUMP", keys.job_key(job_id))
    await connection.once("DEL", keys.job_key(job_id))
    again = RedisConnection.again

    async def write_before_the_tombstone_is_read(self: RedisConnection, *words: Any) -> Any:
        if words == ("GET", keys.tombstone_key(job_id)):
            await self.once("SET", keys.tombstone_key(job_id), "failed ")
            await self.once("RESTORE", keys.job_key(job_id), 0, kept, "REPLACE")
        return await again(self, *words)

    monkeypatch.setattr(RedisConnection, "again", write_before_the_tombstone_is_read)
    assert (await queue.load(job_id)).id == job_id
