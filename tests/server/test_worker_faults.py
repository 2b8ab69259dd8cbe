"""What befalls a worker: a job that comes back before it is known to be lost, a Redis that takes no writes, a crash."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import ResponseError

from oar_wire.errors import RedisUnavailable
from server.jobs.connection import RedisConnection
from server.jobs.embedded import EmbeddedRedis
from server.jobs.events import EventLog
from server.jobs.queue import JobQueue
from server.jobs.store import Registry
from server.jobs.worker_queue import Claim
from server.settings import Settings
from server.worker.bridge import Bridge, WorkerCrashed
from server.worker.engine_thread import Abort, Add, Command
from server.worker.models import load_models
from server.worker.running import Snapshot
from tests.server.gate import Gate
from tests.server.jobs.protocol import ManualClock, params
from tests.waiting import HANG_SECONDS, wait_for

pytestmark = pytest.mark.anyio

LONG = params(n=4, steps=16, order="raster")


def claim_of(job_id: str, **changes: Any) -> Claim:
    values = {"epoch": 1, "attempt": 1, "seq": 2, "age": 0, "base": 0, "is_anew": False, "params": LONG} | changes
    return Claim(job_id, "tiny", **values)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


@pytest.fixture
async def bridge(settings: Settings, connection: RedisConnection, weights_dir: Path, gate: Gate) -> Bridge:
    """Made and not running; its engine has a gate."""
    settings = settings.model_copy(update={"weights_dir": weights_dir, "slots": 8, "preview_batch": 2})
    models = load_models(settings)
    for model in models:
        model.engine.step = gate.guard(model.engine.step)
    return Bridge(settings, connection, "w", models)


@asynccontextmanager
async def running(bridge: Bridge) -> AsyncIterator[asyncio.Task[None]]:
    ready = asyncio.Event()
    run = asyncio.create_task(bridge.run(ready.set))
    await ready.wait()
    yield run
    bridge.stop()
    await asyncio.wait([run])


@pytest.mark.running
async def test_a_job_that_is_back_before_it_is_lost_is_one_job_still(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, sent = bridge._desk, list[Command]()
    monkeypatch.setattr(desk, "_send", sent.append)
    for epoch in (1, 2):
        desk.begin(claim_of("gen-1", epoch=epoch), ())
    aborted, added = ([c for c in sent if isinstance(c, kind)] for kind in (Abort, Add))
    assert [c.sequence_id for c in aborted] == [c.request.id for c in added[:4]], "the old pictures are ended"
    assert desk._rows["tiny"] == LONG.rows_per_image * LONG.n, "and hold no rows"
    assert [job.claim.epoch for job in desk.jobs] == [2]
    old, new = (replace(desk.jobs[0], claim=claim_of("gen-1", epoch=epoch)) for epoch in (1, 2))
    for job in (new, old):
        desk.outbox.put(job, "preview", "{}")
    assert set(desk.outbox._dirty) == {("gen-1", 1), ("gen-1", 2)}, "neither takes the other's place"


@pytest.mark.running
async def test_previews_that_were_left_out_are_first_in_the_next_round(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds: list[list[Snapshot]] = []

    async def preview(_pipeline: object, snapshots: Sequence[Snapshot]) -> list[SimpleNamespace]:
        rounds.append(list(snapshots))
        return [SimpleNamespace(known=1, image=s.image, body=lambda: "{}") for s in snapshots]

    monkeypatch.setattr(bridge._desk, "_send", lambda _command: None)
    monkeypatch.setattr(bridge._desk.renderer, "preview", preview)
    monkeypatch.setattr(bridge, "_is_due", lambda _canvas: True)
    bridge._desk.begin(claim_of("gen-1"), ())
    for _ in range(4):
        await bridge._preview("tiny", bridge._models["tiny"].drawing, most=2)
    assert [[s.image for s in snapshots] for snapshots in rounds] == [[0, 1], [2, 3], [0, 1], [2, 3]]


@pytest.mark.running
async def test_a_crash_while_it_drains_ends_the_worker_at_once(
    bridge: Bridge, connection: RedisConnection, gate: Gate
) -> None:
    queue = JobQueue(connection, bridge._settings)
    bridge._settings = bridge._settings.model_copy(update={"drain_seconds": 600.0})
    gate.close()
    async with running(bridge) as run:
        await queue.submit(LONG)
        while not bridge._desk.jobs:
            await asyncio.sleep(0.005)
        bridge.stop()
        bridge._engine.send(None)  # type: ignore[arg-type]  # which is no command: the thread ends with an error
        gate.open()
        with pytest.raises(WorkerCrashed):
            await asyncio.wait_for(run, HANG_SECONDS)


@pytest.mark.running
async def test_what_a_report_breaks_is_a_crash_and_not_a_line_in_a_log(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_report: object) -> None:
        raise ValueError("no such sequence")

    monkeypatch.setattr(bridge._desk, "on_report", broken)
    bridge._on_report(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no such sequence"):
        await bridge._crash


async def test_a_redis_that_cannot_save_is_unavailable(connection: RedisConnection) -> None:
    async def refused() -> None:
        raise ResponseError("MISCONF Valkey is configured to save RDB snapshots, but it's currently unable to persist")

    with pytest.raises(RedisUnavailable):
        await connection.retry(refused)


@pytest.mark.running
async def test_a_worker_outlives_a_redis_that_takes_no_writes(
    tmp_path: Path, weights_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a failover: the old master is a replica, and still has the jobs that wait."""
    server = EmbeddedRedis(tmp_path / "redis")
    server.start()
    try:
        settings = Settings(redis_url=server.url, data_dir=tmp_path, weights_dir=weights_dir, heartbeat_seconds=0.2)
        connection = RedisConnection(server.url)
        bridge = Bridge(settings, connection, "w", load_models(settings))
        monkeypatch.setattr(bridge._desk, "has_room", lambda _model: False)
        async with running(bridge) as run:
            job_id = (await JobQueue(connection, settings).submit(params())).job_id
            await connection.once("REPLICAOF", "127.0.0.1", 1)
            monkeypatch.undo()
            bridge._desk.wake()
            await asyncio.to_thread(wait_for, lambda: "cannot take jobs" in caplog.text)
            assert not run.done()
            await connection.once("REPLICAOF", "NO", "ONE")
            async with asyncio.timeout(HANG_SECONDS):
                while (await EventLog(connection).read_all(job_id))[-1].type != "completed":
                    await asyncio.sleep(0.02)
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
    bridge = Bridge(settings, connection, "w", load_models(settings))
    ready = asyncio.Event()
    run = asyncio.create_task(bridge.run(ready.set))
    await asyncio.to_thread(wait_for, lambda: run.done() or "waits to announce itself" in caplog.text)
    assert not run.done()
    assert not ready.is_set()
    if not is_stopped:
        await asyncio.to_thread(server.start)
        await asyncio.wait_for(ready.wait(), HANG_SECONDS)
        assert [info.name for info in await Registry(connection).models()] == ["tiny"]
    bridge.stop()
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
        await Bridge(settings, connection, "w", models)._announce()
        assert [worker.name for worker in await registry.workers()] == ["w"]
        clock.advance(2 * settings.lease_seconds)
    assert not await registry.workers(), "the second one has not been heard since"


@pytest.mark.running
async def test_a_worker_outlives_a_redis_that_is_full(
    bridge: Bridge, connection: RedisConnection, settings: Settings
) -> None:
    """Some writes of the heartbeat raised what nobody caught; and leases have to be renewed meanwhile."""
    bridge._settings = bridge._settings.model_copy(update={"heartbeat_seconds": 0.05})
    queue = JobQueue(connection, settings)
    async with running(bridge) as run:
        beats = bridge._num_beats
        await connection.once("CONFIG", "SET", "maxmemory", 1)
        try:
            while bridge._num_beats < beats + 5:
                await asyncio.sleep(0.02)
            assert not run.done()
        finally:
            await connection.once("CONFIG", "SET", "maxmemory", 0)
        job_id = (await queue.submit(params())).job_id
        async with asyncio.timeout(30):
            while (await EventLog(connection).read_all(job_id))[-1].type != "completed":
                await asyncio.sleep(0.02)
