"""Who is served first."""

import asyncio

import pytest

from server.jobs import keys
from server.jobs.connection import RedisConnection
from server.jobs.job import JobState
from server.jobs.queue import JobQueue
from server.settings import Settings
from tests.server.jobs.protocol import open_worker, params, run, take

pytestmark = pytest.mark.anyio

WORK = 12  # row-steps of one job
YOUNG = {"priority_aging_seconds": 3600.0}
AGED = {"priority_aging_seconds": 0.1}


async def submit(queue: JobQueue, *priorities: str) -> list[str]:
    return [(await queue.submit(params(priority=priority))).job_id for priority in priorities]


@pytest.fixture
def young(settings: Settings) -> Settings:
    return settings.model_copy(update=YOUNG)


async def test_the_highest_is_taken_first_and_the_oldest_of_it(connection: RedisConnection, young: Settings) -> None:
    jobs = await submit(JobQueue(connection, young), "low", "normal", "high", "low", "normal", "high")
    worker = await open_worker(connection, young)
    taken = [(await take(worker)).job_id for _ in jobs]
    assert taken == [jobs[index] for index in (2, 5, 1, 4, 0, 3)]
    assert await worker.take(0.05) is None


async def make_older(connection: RedisConnection, job_id: str, seconds: int) -> None:
    """Moves the time at which the only job of its queue came; before there is a worker."""
    queue = keys.queue_key("tiny", "low")
    ((entry, fields),) = await connection.once("XRANGE", queue, "-", "+")
    milliseconds, number = map(int, entry.decode().split("-"))
    older = f"{milliseconds - 1000 * seconds}-{number}"
    await connection.once("DEL", queue)
    await connection.once("XADD", queue, older, *fields)
    await connection.once("HSET", keys.job_key(job_id), "entry", older)


async def test_waiting_raises_a_job_by_one_level_at_a_time(connection: RedisConnection, young: Settings) -> None:
    """With a level each hour a low job of one hour ties with a new normal one, and is older; a high one comes first."""
    queue = JobQueue(connection, young)
    (low,) = await submit(queue, "low")
    await make_older(connection, low, 3600)
    worker = await open_worker(connection, young)
    normal, high = await submit(queue, "normal", "high")
    assert [(await take(worker)).job_id for _ in range(3)] == [high, low, normal]


async def test_a_low_job_is_not_starved_by_a_stream_of_high_ones(
    connection: RedisConnection, settings: Settings
) -> None:
    aged = settings.model_copy(update=AGED)
    queue, worker = JobQueue(connection, aged), await open_worker(connection, aged)
    (low,) = await submit(queue, "low")
    for _ in range(100):
        await submit(queue, "high", "high")  # two come while one is served: they alone would never end
        claim = await take(worker)
        await run(connection, worker.calls.finish(claim, JobState.COMPLETED, "{}"))
        if claim.job_id == low:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the low job never had its turn")


async def test_position_and_work_ahead_respect_priority(connection: RedisConnection, young: Settings) -> None:
    queue, worker = JobQueue(connection, young), await open_worker(connection, young)
    jobs = [await queue.load(job_id) for job_id in await submit(queue, "low", "normal", "high", "normal")]
    places = [await queue.look(job.id) for job in jobs]
    assert [place.waiting_ahead for place in places] == [3, 1, 0, 2]
    assert [place.work_ahead for place in places] == [3 * WORK, WORK, 0, 2 * WORK]
    assert (await take(worker)).job_id == jobs[2].id
    places = [await queue.look(job.id) for job in jobs]
    assert [place.waiting_ahead for place in places] == [2, 0, 0, 1]
    assert [place.work_ahead for place in places] == [3 * WORK, WORK, 0, 2 * WORK]


async def test_position_respects_aging(connection: RedisConnection, settings: Settings) -> None:
    aged = settings.model_copy(update=AGED)
    queue = JobQueue(connection, aged)
    (low,) = await submit(queue, "low")
    await asyncio.sleep(0.25)
    (high,) = await submit(queue, "high")
    places = [await queue.look(job_id) for job_id in (low, high)]
    assert [place.waiting_ahead for place in places] == [0, 1]


async def test_what_was_begun_before_comes_before_all_that_waits(connection: RedisConnection, young: Settings) -> None:
    queue, worker = JobQueue(connection, young), await open_worker(connection, young)
    (low,) = await submit(queue, "low")
    await run(connection, worker.calls.release(await take(worker)))
    (high,) = await submit(queue, "high")
    places = [await queue.look(job_id) for job_id in (low, high)]
    assert [place.waiting_ahead for place in places] == [0, 1]
    assert [(await take(worker)).job_id for _ in range(2)] == [low, high]


async def test_a_job_that_was_let_go_is_found_among_many_that_are_held(
    connection: RedisConnection, young: Settings
) -> None:
    """XAUTOCLAIM with COUNT 1 looks at the first ten held entries only: the eleventh waited for one of them to end."""
    queue, worker = JobQueue(connection, young), await open_worker(connection, young)
    await submit(queue, *["normal"] * 30)
    claims = [await take(worker) for _ in range(30)]
    await run(connection, worker.calls.release(claims[-1]))
    assert (await take(await open_worker(connection, young, "two"))).job_id == claims[-1].job_id


async def test_the_depth_counts_all_priorities(connection: RedisConnection, young: Settings) -> None:
    queue = JobQueue(connection, young)
    await submit(queue, "low", "normal", "high")
    assert await queue.depth("tiny") == 3
