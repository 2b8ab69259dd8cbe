"""Deadlines, with and without a worker, and the sweeper that ends what nobody else does."""

import asyncio

import pytest

from server.jobs import keys
from server.jobs.connection import RedisConnection
from server.jobs.events import EventLog
from server.jobs.job import JobState
from server.jobs.log import NewEvent
from server.jobs.queue import JobQueue
from server.jobs.sweeper import Sweeper
from server.settings import Settings
from server.tasks import stop_tasks
from tests.server.jobs.protocol import PARAMS, ManualClock, kinds, make_late, open_worker, params, run, take
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture
def queue(connection: RedisConnection, settings: Settings) -> JobQueue:
    return JobQueue(connection, settings)


async def test_a_late_job_fails_before_it_is_begun(
    connection: RedisConnection, settings: Settings, queue: JobQueue
) -> None:
    worker = await open_worker(connection, settings)
    job_id = (await queue.submit(params(deadline=60.0))).job_id
    await make_late(connection, job_id)
    taken = await worker.take(0.2)
    assert taken is not None
    assert await worker.claim(taken) is None
    assert "deadline_exceeded" in (await queue.load(job_id)).result
    assert await kinds(connection, job_id) == ["queued", "failed"]


async def test_a_request_s_deadline_wins_over_the_setting(connection: RedisConnection, settings: Settings) -> None:
    hasty = settings.model_copy(update={"job_deadline": 0.01})
    queue, worker = JobQueue(connection, hasty), await open_worker(connection, hasty)
    job_id = (await queue.submit(params(deadline=60.0))).job_id
    await asyncio.sleep(0.05)
    assert (await take(worker)).job_id == job_id


async def test_a_running_job_s_worker_hears_of_it_with_the_next_step(
    connection: RedisConnection, settings: Settings, queue: JobQueue
) -> None:
    worker = await open_worker(connection, settings)
    await queue.submit(params(deadline=60.0))
    claim = await take(worker)
    assert await run(connection, worker.calls.emit(claim, 2, [NewEvent("patches", "{}")])) == [3, 0]
    await make_late(connection, claim.job_id)
    assert await run(connection, worker.calls.emit(claim, 3, [NewEvent("patches", "{}")])) == [4, 2]
    assert await run(connection, worker.calls.renew(claim)) == 2


async def test_a_late_job_ends_though_no_worker_is_alive(
    connection: RedisConnection, settings: Settings, queue: JobQueue
) -> None:
    late, patient = (await queue.submit(params(deadline=60.0))).job_id, (await queue.submit(PARAMS)).job_id
    sweeper = Sweeper(connection, settings.model_copy(update={"sweep_seconds": 60.0}))
    assert await sweeper.sweep() == 1, "a new one looks at all that have a time"
    assert await sweeper.sweep() == 0
    await make_late(connection, late)
    assert await sweeper.sweep() == 1
    assert await sweeper.sweep() == 0
    assert "deadline_exceeded" in (await queue.load(late)).result
    assert await kinds(connection, late) == ["queued", "failed"]
    assert (await queue.load(patient)).state is JobState.QUEUED
    assert await queue.depth("tiny") == 1


async def test_a_running_job_is_its_workers_to_end_until_that_is_dead(
    connection: RedisConnection, settings: Settings, queue: JobQueue
) -> None:
    clock = ManualClock()
    sweeper = Sweeper(connection, settings.model_copy(update={"sweep_seconds": 60.0}), clock=clock)
    worker = await open_worker(connection, settings)
    job_id = (await queue.submit(params(deadline=60.0))).job_id
    claim = await take(worker)
    await make_late(connection, job_id)
    assert await sweeper.sweep() == 1
    assert (await queue.load(job_id)).state is JobState.RUNNING
    for _ in range(3):  # whatever it did meanwhile, it lives
        clock.advance(3600)
        assert await run(connection, worker.calls.renew(claim)) == 2
        await make_late(connection, job_id)
        assert await sweeper.sweep() == 1
        assert (await queue.load(job_id)).state is JobState.RUNNING
    clock.advance(3600)
    await make_late(connection, job_id)
    assert await sweeper.sweep() == 1
    assert (await queue.load(job_id)).state is JobState.FAILED
    assert await run(connection, worker.calls.emit(claim, 2, [NewEvent("patches", "{}")])) == [-1, 0]
    assert await kinds(connection, job_id) == ["queued", "started", "failed"]


async def test_a_canceled_job_whose_worker_died_ends_though_no_worker_is_alive(
    connection: RedisConnection, settings: Settings, queue: JobQueue
) -> None:
    quick = settings.model_copy(update={"lease_seconds": 0.6})
    worker, sweeper = await open_worker(connection, quick), Sweeper(connection, quick)
    queue = JobQueue(connection, quick)
    job_id = (await queue.submit(PARAMS)).job_id
    await take(worker)
    assert await queue.cancel(await queue.load(job_id)) is JobState.RUNNING

    async def has_ended() -> bool:
        await sweeper.sweep()
        return (await queue.load(job_id)).state is not JobState.RUNNING

    await wait_until(has_ended)
    assert await kinds(connection, job_id) == ["queued", "started", "canceled"]
    assert await connection.once("ZCARD", keys.DUE) == 0


async def test_exactly_one_sweeps_and_another_takes_over_when_it_stops(
    connection: RedisConnection, settings: Settings
) -> None:
    patient = settings.model_copy(update={"sweep_seconds": 20.0})
    first, second = Sweeper(connection, patient), Sweeper(connection, patient)
    assert await first.sweep() == 0
    assert await second.sweep() is None
    assert await first.sweep() == 0
    assert 0 < await connection.once("PTTL", keys.SWEEPER) <= 60_000
    await connection.once("DEL", keys.SWEEPER)  # its lease has run out
    assert await second.sweep() == 0
    assert await first.sweep() is None


async def test_a_sweeper_s_lease_ends_though_redis_clock_was_set_back(
    connection: RedisConnection, settings: Settings
) -> None:
    """The key lives half an hour longer then; others see that nobody renews it."""
    clock = ManualClock()
    dead, living = Sweeper(connection, settings), Sweeper(connection, settings, clock=clock)
    assert await dead.sweep() == 0
    await connection.once("PEXPIRE", keys.SWEEPER, 1_800_000)
    assert await living.sweep() is None
    clock.advance(60)
    assert await dead.sweep() == 0
    assert await living.sweep() is None, "it was renewed meanwhile"
    clock.advance(60)
    assert await living.sweep() == 0
    assert await dead.sweep() is None


async def test_a_canceled_job_ends_though_redis_clock_was_set_back(
    connection: RedisConnection, settings: Settings, queue: JobQueue
) -> None:
    """The moment at which it is to be looked at lies half an hour ahead then."""
    clock = ManualClock()
    worker, sweeper = await open_worker(connection, settings), Sweeper(connection, settings, clock=clock)
    assert await sweeper.sweep() == 0
    job_id = (await queue.submit(PARAMS)).job_id
    await take(worker)
    await queue.cancel(await queue.load(job_id))
    await connection.once("ZADD", keys.DUE, 4_000_000_000_000, job_id)
    for _ in range(2):
        # What is set back is Redis' clock against ours, so ours goes forward.
        clock.advance(3600)
        assert await sweeper.sweep() == 1
        await connection.once("ZADD", keys.DUE, "XX", 4_000_000_000_000, job_id)
    assert (await queue.load(job_id)).state is JobState.CANCELED


async def test_two_sweepers_at_once_end_a_job_once(
    connection: RedisConnection, settings: Settings, queue: JobQueue
) -> None:
    """As when a sweeper was frozen and its lease went to another."""
    job_id = (await queue.submit(params(deadline=60.0))).job_id
    await make_late(connection, job_id)
    sweepers = [Sweeper(connection, settings) for _ in range(4)]
    await asyncio.gather(*(sweeper._look_at(job_id) for sweeper in sweepers))
    assert await kinds(connection, job_id) == ["queued", "failed"]


async def test_a_sweeper_outlives_redis_outages(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    connection = RedisConnection("unix:///nowhere/redis.sock")
    task = asyncio.create_task(Sweeper(connection, settings.model_copy(update={"sweep_seconds": 0.05})).run())

    async def has_failed_twice() -> bool:
        return caplog.text.count("cannot sweep") >= 2

    await wait_until(has_failed_twice)
    assert not task.done()
    await stop_tasks([task])
    await connection.close()


async def test_ended_jobs_leave_no_trace_in_the_index(
    connection: RedisConnection, settings: Settings, queue: JobQueue
) -> None:
    worker = await open_worker(connection, settings)
    await queue.submit(params(deadline=60.0))
    await run(connection, worker.calls.finish(await take(worker), JobState.COMPLETED, "{}"))
    waiting = (await queue.submit(params(deadline=60.0))).job_id
    await queue.cancel(await queue.load(waiting))
    assert await connection.once("ZCARD", keys.DUE) == 0
    assert [event.type for event in await EventLog(connection).read_all(waiting)] == ["queued", "canceled"]
