"""What befalls a worker: a job that comes back before it is known to be lost, a Redis that takes no writes, a crash."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ResponseError

from oar_core.engine.events import EngineEvent, PatchesDecoded
from oar_core.models.model import Model
from oar_wire.errors import RedisUnavailable
from oar_wire.events import Partial, Preview
from server.jobs.connection import RedisConnection
from server.jobs.embedded import EmbeddedRedis
from server.jobs.events import EventLog
from server.jobs.log import Claim, Order, Write
from server.jobs.memory_log import MemoryJobLog
from server.jobs.queue import JobQueue
from server.jobs.store import Registry
from server.observability.metrics import WorkerMetrics
from server.results.store import WithTheEnding
from server.settings import Settings
from server.tasks import BackgroundTasks, stop_tasks
from server.worker.engine_thread import Abort, Add, Command
from server.worker.models import LoadedModel, load_models
from server.worker.outputs import OutputWriter
from server.worker.previews import Expectations, Previews
from server.worker.render import Renderer
from server.worker.runner import Runner
from server.worker.running import RunningJob, Snapshot
from server.worker.speed import MeasuredSpeed
from server.worker.table import JobTable
from server.worker.worker import Worker, WorkerCrashed
from tests.server.gate import Gate
from tests.server.jobs.protocol import ManualClock, params
from tests.waiting import HANG_SECONDS, wait_for

pytestmark = pytest.mark.anyio

LONG = params(n=4, steps=16, order="raster")


def claim_of(job_id: str, **changes: Any) -> Claim:
    values = {"epoch": 1, "attempt": 1, "seq": 2, "age": 0, "base": 0, "begins_again": False, "params": LONG} | changes
    return Claim(job_id, "tiny", **values)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


@pytest.fixture
def options(settings: Settings, weights_dir: Path) -> Settings:
    return settings.model_copy(
        update={"weights_dir": weights_dir, "slots": 8, "preview_batch": 2, "drain_seconds": 600.0}
    )


@pytest.fixture
def models(options: Settings, gate: Gate) -> dict[str, LoadedModel]:
    """Their engines have a gate."""
    loaded = load_models(options)
    for model in loaded:
        model.engine.step = gate.guard(model.engine.step)
    return {model.name: model for model in loaded}


class Crew:
    """A runner whose engine only notes what it is sent."""

    def __init__(self, models: dict[str, LoadedModel], log: Any = None) -> None:
        self.metrics = WorkerMetrics(tuple(models))
        self.table = JobTable(models, self.metrics)
        self.sent: list[Command] = []
        background = BackgroundTasks(lambda error: pytest.fail(str(error)))
        log = log or MemoryJobLog()
        self.runner = Runner(log, self.table, models, self.metrics, self.sent.append, background)


@pytest.fixture
async def worker(options: Settings, connection: RedisConnection, models: dict[str, LoadedModel]) -> Worker:
    """Made and not running."""
    return Worker(options, connection, "w", list(models.values()))


@asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[asyncio.Task[None]]:
    ready = asyncio.Event()
    run = asyncio.create_task(worker.run(ready.set))
    await ready.wait()
    yield run
    worker.stop()
    await asyncio.wait([run])


async def until_completed(connection: RedisConnection, job_id: str) -> None:
    async with asyncio.timeout(HANG_SECONDS):
        while (await EventLog(connection).read_all(job_id))[-1].type != "completed":
            await asyncio.sleep(0.02)


async def test_a_job_that_is_back_before_it_is_lost_is_one_job_still(models: dict[str, LoadedModel]) -> None:
    crew = Crew(models)
    for epoch in (1, 2):
        crew.runner.begin(RunningJob.begin(claim_of("gen-1", epoch=epoch)))
    added = [command.request.id for command in crew.sent if isinstance(command, Add)]
    aborted = [command.sequence_id for command in crew.sent if isinstance(command, Abort)]
    assert aborted == added[:4], "the old pictures are ended"
    assert [crew.table.owner(sequence_id) for sequence_id in aborted] == [None] * 4
    assert [job.claim.epoch for job in crew.table.jobs] == [2]
    used = crew.metrics.registry.get_sample_value("oar_cache_slots_used", {"model": "tiny"})
    assert used == LONG.rows_per_image * LONG.n, "and hold no rows"


class Recorder(MemoryJobLog):
    """Notes what is written, and knows of no job."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[Write] = []

    async def write(self, writes: Sequence[Write]) -> list[Order]:
        self.writes += writes
        return [Order.GO_ON for _ in writes]


async def test_a_job_that_is_back_takes_no_write_of_its_former_claim(models: dict[str, LoadedModel]) -> None:
    log = Recorder()
    outbox = Crew(models, log).runner.outbox
    for epoch in (2, 1):
        outbox.put(RunningJob.begin(claim_of("gen-1", epoch=epoch)), "preview", "{}")
    sending = asyncio.create_task(outbox.run())
    await outbox.wait_until_idle()
    await stop_tasks([sending])
    assert [(write.claim.epoch, len(write.events)) for write in log.writes] == [(2, 1), (1, 1)]


class NotingRenderer(Renderer):
    """Draws nothing, and notes what it was to draw."""

    def __init__(self) -> None:
        super().__init__()
        self.rounds: list[list[int]] = []
        self.shown: list[tuple[int, ...]] = []

    async def preview(self, pipeline: Model, snapshots: Sequence[Snapshot]) -> list[Preview | Partial]:
        self.rounds.append([snapshot.image for snapshot in snapshots])
        self.shown += [snapshot.positions for snapshot in snapshots]
        return [
            Preview(image=snapshot.image, known=len(snapshot.positions), total=20, width=1, height=1, data="")
            for snapshot in snapshots
        ]


@pytest.mark.running
async def test_previews_that_were_left_out_are_first_in_the_next_round(
    options: Settings, models: dict[str, LoadedModel]
) -> None:
    crew, renderer = Crew(models), NotingRenderer()
    always = options.model_copy(update={"preview_interval": 0.0})
    expectations = Expectations(models, crew.sent.append)
    previews = Previews(crew.table, crew.runner.outbox, renderer, expectations, models, crew.metrics, always)
    job = RunningJob.begin(claim_of("gen-1"))
    crew.runner.begin(job)
    for number in range(4):
        for picture in job.pictures:
            picture.add([number], [0])
        await previews.make_round()
    renderer.close()
    assert renderer.rounds == [[0], [1, 2], [3, 0], [1, 2]], "the first round learns what one costs"


async def test_a_worker_without_jobs_does_not_wake_up_for_previews(
    options: Settings, models: dict[str, LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    crew, renderer, rounds = Crew(models), NotingRenderer(), asyncio.Event()
    always = options.model_copy(update={"preview_interval": 0.0})
    expectations = Expectations(models, crew.sent.append)
    previews = Previews(crew.table, crew.runner.outbox, renderer, expectations, models, crew.metrics, always)
    make_round = previews.make_round

    async def counted() -> float:
        rounds.set()
        return await make_round()

    async def settle() -> bool:
        """Lets every task run; tells whether rounds were made meanwhile."""
        rounds.clear()
        for _ in range(100):
            await asyncio.sleep(0)
        return rounds.is_set()

    monkeypatch.setattr(previews, "make_round", counted)
    run = asyncio.create_task(previews.run())
    assert not await settle()
    job = RunningJob.begin(claim_of("gen-1"))
    crew.runner.begin(job)
    await asyncio.wait_for(rounds.wait(), HANG_SECONDS)
    crew.table.remove(job)
    await settle()
    assert not await settle()
    run.cancel()
    renderer.close()


async def test_a_partial_image_shows_what_was_there_when_it_was_due(models: dict[str, LoadedModel]) -> None:
    """The engine may have gone on before the image is rendered."""
    crew, renderer = Crew(models), NotingRenderer()
    background = BackgroundTasks(lambda error: pytest.fail(str(error)))
    expectations = Expectations(models, crew.sent.append)
    speed, results = MeasuredSpeed(), WithTheEnding()
    outputs = OutputWriter(
        crew.runner.outbox, renderer, expectations, models, crew.metrics, speed, background, crew.table, results
    )
    job = RunningJob.begin(claim_of("gen-1"))
    crew.runner.begin(job)
    job.pictures[0].add([3, 5], [1, 1])
    outputs.add_partial(job, 0, 0)
    job.pictures[0].add([7], [1])
    await asyncio.to_thread(wait_for, lambda: renderer.shown)
    renderer.close()
    assert renderer.shown == [(3, 5)]


@pytest.mark.running
async def test_a_crash_while_it_drains_ends_the_worker_at_once(
    worker: Worker, options: Settings, connection: RedisConnection, models: dict[str, LoadedModel], gate: Gate
) -> None:
    def broken() -> list[EngineEvent]:
        raise RuntimeError("the device is gone")

    models["tiny"].engine.step = gate.guard(broken)  # type: ignore[method-assign]
    gate.close()
    async with running(worker) as run:
        await JobQueue(connection, options).submit(LONG)
        while not worker.jobs:
            await asyncio.sleep(0.005)
        worker.stop()
        gate.open()
        with pytest.raises(WorkerCrashed, match="the device is gone"):
            await asyncio.wait_for(run, HANG_SECONDS)


@pytest.mark.running
async def test_what_a_report_breaks_is_a_crash_and_not_a_line_in_a_log(
    worker: Worker, options: Settings, connection: RedisConnection, models: dict[str, LoadedModel]
) -> None:
    step = models["tiny"].engine.step

    def broken_event() -> list[EngineEvent]:
        step()
        (job,) = worker.jobs
        return [PatchesDecoded(job.sequence_id(0), 1, 16, None)]  # type: ignore[arg-type]

    models["tiny"].engine.step = broken_event  # type: ignore[method-assign]
    async with running(worker) as run:
        await JobQueue(connection, options).submit(LONG)
        with pytest.raises(WorkerCrashed, match="TypeError"):
            await asyncio.wait_for(run, HANG_SECONDS)


async def test_a_redis_that_cannot_save_is_unavailable(connection: RedisConnection) -> None:
    async def refused() -> None:
        raise ResponseError("MISCONF Valkey is configured to save RDB snapshots, but it's currently unable to persist")

    with pytest.raises(RedisUnavailable):
        await connection.retry(refused)


@pytest.mark.running
async def test_a_worker_outlives_a_redis_that_takes_no_writes(
    tmp_path: Path, options: Settings, models: dict[str, LoadedModel], gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a failover: the old master is a replica, and still has the jobs that wait."""
    server = EmbeddedRedis(tmp_path / "redis")
    server.start()
    try:
        options = options.model_copy(update={"redis_url": server.url})
        connection = RedisConnection(server.url)
        queue = JobQueue(connection, options)
        gate.close()
        async with running(Worker(options, connection, "w", list(models.values()))) as run:
            # The first job has all rows until the gate is open, and the second waits for them.
            jobs = [(await queue.submit(params(n=4))).job_id for _ in range(2)]
            while (await queue.load(jobs[0])).started_at is None:
                await asyncio.sleep(0.005)
            await connection.once("REPLICAOF", "127.0.0.1", 1)
            gate.open()
            await asyncio.to_thread(wait_for, lambda: "cannot take jobs" in caplog.text)
            assert not run.done()
            await connection.once("REPLICAOF", "NO", "ONE")
            for job_id in jobs:
                await until_completed(connection, job_id)
        await connection.close()
    finally:
        server.stop()


@pytest.mark.running
@pytest.mark.parametrize("is_stopped", [False, True])
async def test_a_worker_that_starts_while_redis_is_away_waits_for_it(
    tmp_path: Path, weights_dir: Path, caplog: pytest.LogCaptureFixture, is_stopped: bool
) -> None:
    """Redis was there before the models were read, and has gone meanwhile; the worker ended with a traceback."""
    server = EmbeddedRedis(tmp_path / "redis")
    settings = Settings(redis_url=server.url, data_dir=tmp_path, weights_dir=weights_dir)
    connection = RedisConnection(server.url)
    worker = Worker(settings, connection, "w", load_models(settings))
    ready = asyncio.Event()
    run = asyncio.create_task(worker.run(ready.set))
    await asyncio.to_thread(wait_for, lambda: run.done() or "waits to announce itself" in caplog.text)
    assert not run.done()
    assert not ready.is_set()
    if not is_stopped:
        await asyncio.to_thread(server.start)
        await asyncio.wait_for(ready.wait(), HANG_SECONDS)
        assert [info.name for info in await Registry(connection).models()] == ["tiny"]
    worker.stop()
    await asyncio.wait_for(run, HANG_SECONDS)
    assert ready.is_set() is not is_stopped
    await connection.close()
    server.stop()


async def test_a_worker_that_is_started_again_under_its_name_is_alive_at_once(
    settings: Settings, connection: RedisConnection, weights_dir: Path
) -> None:
    """Each process counted its heartbeats from 1. Where the one before had died after its first, the next one looked as
    dead as that until its second, and submits were refused."""
    settings = settings.model_copy(update={"weights_dir": weights_dir})
    clock = ManualClock()
    registry = Registry(connection, clock)
    models = load_models(settings)
    for _ in range(2):
        ready = asyncio.Event()
        run = asyncio.create_task(Worker(settings, connection, "w", models).run(ready.set))
        await ready.wait()
        await stop_tasks([run])  # it dies, and says nothing
        assert [worker.name for worker in await registry.workers.alive()] == ["w"]
        clock.advance(2 * settings.lease_seconds)
    assert not await registry.workers.alive(), "the second one has not been heard since"


@pytest.mark.running
async def test_a_worker_outlives_a_redis_that_is_full(
    options: Settings, connection: RedisConnection, models: dict[str, LoadedModel], caplog: pytest.LogCaptureFixture
) -> None:
    """Some writes of the heartbeat raised what nobody caught; and leases have to be renewed meanwhile."""
    options = options.model_copy(update={"lease_seconds": 0.15})
    queue = JobQueue(connection, options)
    async with running(Worker(options, connection, "w", list(models.values()))) as run:
        await connection.once("CONFIG", "SET", "maxmemory", 1)
        try:
            await asyncio.to_thread(wait_for, lambda: caplog.text.count("no heartbeat") >= 5)
            assert not run.done()
        finally:
            await connection.once("CONFIG", "SET", "maxmemory", 0)
        await until_completed(connection, (await queue.submit(params())).job_id)
