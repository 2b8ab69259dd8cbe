"""The protocol against a real Valkey, with a worker that is this test."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from oar_wire.errors import IdempotencyConflict, JobExpired, JobNotFound, ModelNotReady, QueueFull, RedisUnavailable
from oar_wire.job import GenerationParams
from oar_wire.model import WorkerInfo
from server.jobs import keys, scripts
from server.jobs.admission import MARGIN, Idempotency
from server.jobs.connection import RedisConnection, Word
from server.jobs.control import ControlStream
from server.jobs.events import EventLog
from server.jobs.job import JobState
from server.jobs.log import Claim, Kept, NewEvent
from server.jobs.queue import JobQueue
from server.jobs.store import OutputStore, Registry
from server.jobs.worker_queue import WorkerQueue
from server.settings import Settings
from tests.server.jobs.protocol import TRANSITIONS, end_leases, set_clock
from tests.server.jobs.protocol import open_worker as open_observer
from tests.waiting import HANG_SECONDS

pytestmark = pytest.mark.anyio

PARAMS = GenerationParams(
    model="tiny", prompt="a red circle", seed=7, n=2, order="raster", steps=3, group_sizes="cosine",
    guidance=2.0, temperature=1.0, top_k=0, top_p=1.0,
)  # fmt: skip


@pytest.fixture
def queue(connection: RedisConnection, settings: Settings) -> JobQueue:
    return JobQueue(connection, settings)


@pytest.fixture
def log(connection: RedisConnection) -> EventLog:
    return EventLog(connection)


async def open_worker(connection: RedisConnection, settings: Settings, name: str = "one") -> WorkerQueue:
    worker = WorkerQueue(connection, settings, name, "tiny")
    await worker.open()
    return worker


async def take(worker: WorkerQueue) -> Claim:
    item = await worker.take(0.2)
    assert item is not None
    claim = await worker.claim(item)
    assert claim is not None
    return claim


async def run(connection: RedisConnection, call: scripts.ScriptCall) -> Any:
    return (await scripts.run_many(connection, [call]))[0]


async def kinds(log: EventLog, job_id: str) -> list[str]:
    events = await log.read_all(job_id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    return [event.type for event in events]


async def test_a_job_goes_from_submit_to_its_pictures(
    connection: RedisConnection, settings: Settings, queue: JobQueue, log: EventLog
) -> None:
    worker = await open_worker(connection, settings)
    job_id = (await queue.submit(PARAMS)).job_id
    assert (await queue.load(job_id)).state is JobState.QUEUED
    claim = await take(worker)
    assert (claim.job_id, claim.params, claim.attempt, claim.seq) == (job_id, PARAMS, 1, 2)
    assert await run(
        connection, worker.calls.emit(claim, 2, [NewEvent("patches", '{"a":1}'), NewEvent("preview", "{}")])
    ) == [4, 0]
    assert await run(connection, worker.calls.finish(claim, JobState.COMPLETED, "{}", [b"\x89PNG0", b"\xff1"])) == 1
    job = await queue.load(job_id)
    assert job.state is JobState.COMPLETED
    assert job.started_at is not None
    assert await kinds(log, job_id) == ["queued", "started", "patches", "preview", "completed"]
    outputs = OutputStore(connection)
    found = [await outputs.read(job_id, "image", index) for index in range(3)]
    assert [output and output.data for output in found] == [b"\x89PNG0", b"\xff1", None]
    assert await queue.depth("tiny") == 0
    assert await connection.once("XLEN", keys.queue_key("tiny")) == 0


async def test_the_source_of_an_edit_lives_as_long_as_its_job(
    connection: RedisConnection, settings: Settings, queue: JobQueue
) -> None:
    worker = await open_worker(connection, settings)
    job_id = (await queue.submit(PARAMS, source=b"a png")).job_id
    assert await OutputStore(connection).read_source(job_id) == b"a png"
    assert await connection.once("PTTL", keys.source_key(job_id)) == -1, "a job may wait for long"
    await run(connection, worker.calls.finish(await take(worker), JobState.COMPLETED, "{}", [b"1"]))
    left = [await connection.once("PTTL", key) for key in (keys.source_key(job_id), keys.job_key(job_id))]
    assert all(0 < milliseconds <= settings.result_ttl * 1000 for milliseconds in left)


async def test_the_source_of_a_refused_edit_is_not_stored(connection: RedisConnection, settings: Settings) -> None:
    queue = JobQueue(connection, settings.model_copy(update={"queue_depth": 1}))
    await queue.submit(PARAMS, source=b"first")
    with pytest.raises(ModelNotReady):
        await queue.submit(PARAMS, source=b"second")
    assert len(await connection.once("KEYS", keys.source_key("*"))) == 1


async def test_repeated_calls_change_nothing(
    connection: RedisConnection, settings: Settings, queue: JobQueue, log: EventLog
) -> None:
    """A reply may be lost, so each script is sent again; its effect must not double."""
    worker = await open_worker(connection, settings)
    job_id = (await queue.submit(PARAMS)).job_id
    claim = await take(worker)
    emit = worker.calls.emit(claim, 2, [NewEvent("patches", "{}"), NewEvent("patches", "{}")])
    assert await run(connection, emit) == await run(connection, emit) == [4, 0]
    finish = worker.calls.finish(claim, JobState.COMPLETED, "{}", [b"1"])
    assert await run(connection, finish) == await run(connection, finish) == 1
    assert await run(connection, emit) == [-1, 0]
    assert await kinds(log, job_id) == ["queued", "started", "patches", "patches", "completed"]


async def test_a_worker_that_lost_its_job_writes_nothing(
    connection: RedisConnection, settings: Settings, queue: JobQueue, log: EventLog
) -> None:
    slow = await open_worker(connection, settings)
    job_id = (await queue.submit(PARAMS)).job_id
    stale = await take(slow)
    quick = await open_observer(connection, settings, "two")
    await end_leases(quick)
    item = await quick.take(0.2)
    assert item is not None
    claim = await quick.claim(item)
    assert claim is not None
    assert (claim.attempt, claim.is_restart) == (2, True)
    assert await run(connection, slow.calls.emit(stale, 2, [NewEvent("patches", "{}")])) == [-1, 0]
    assert await run(connection, slow.calls.finish(stale, JobState.COMPLETED, "{}")) == -1
    assert await run(connection, slow.calls.renew(stale)) == -1
    assert await run(connection, quick.calls.finish(claim, JobState.COMPLETED, "{}")) == 1
    assert await kinds(log, job_id) == ["queued", "started", "completed"]


async def test_a_renewed_lease_is_not_taken_over(
    connection: RedisConnection, settings: Settings, queue: JobQueue
) -> None:
    worker, other = await open_worker(connection, settings), await open_observer(connection, settings, "two")
    await queue.submit(PARAMS)
    claim = await take(worker)
    await end_leases(other)
    assert await run(connection, worker.calls.renew(claim)) == 0
    assert await other.take(0.05) is None, "it is alive, though the other one has not seen that yet"
    await other.observe()
    assert await other.take(0.05) is None


async def test_a_clock_that_is_set_back_suspends_no_lease(
    connection: RedisConnection, settings: Settings, queue: JobQueue
) -> None:
    """Half an hour back: a frozen worker kept its jobs for half an hour."""
    frozen, other = await open_worker(connection, settings), await open_observer(connection, settings, "two")
    job_id = (await queue.submit(PARAMS)).job_id
    claim = await take(frozen)
    await set_clock(connection, claim, by=-1800)
    await end_leases(other)
    item = await other.take(0.05)
    assert item is not None
    assert item.job_id == job_id


async def test_a_clock_that_is_set_forward_ends_no_lease(
    connection: RedisConnection, settings: Settings, queue: JobQueue
) -> None:
    """A day forward: every running job was taken over, and had used up an attempt."""
    worker, other = await open_worker(connection, settings), await open_observer(connection, settings, "two")
    job_id = (await queue.submit(PARAMS)).job_id
    claim = await take(worker)
    for _ in range(3):
        await set_clock(connection, claim, by=86_400)
        await other.observe()
        assert await other.take(0.05) is None
    assert await run(connection, worker.calls.renew(claim)) == 0
    assert (await queue.load(job_id)).attempts == 1


async def test_a_restarted_worker_finds_its_jobs_without_waiting(
    connection: RedisConnection, settings: Settings, queue: JobQueue
) -> None:
    job_id = (await queue.submit(PARAMS)).job_id
    await take(await open_worker(connection, settings))
    again = await open_worker(connection, settings)
    unfinished = await again.unfinished()
    assert [taken.job_id for taken in unfinished] == [job_id]
    claim = await again.claim(unfinished[0])
    assert claim is not None
    assert claim.attempt == 2


async def test_a_job_that_kills_its_workers_fails(
    connection: RedisConnection, settings: Settings, queue: JobQueue, log: EventLog
) -> None:
    worker = await open_worker(connection, settings)
    job_id = (await queue.submit(PARAMS)).job_id
    await take(worker)
    for _ in range(settings.max_attempts - 1):
        assert await worker.claim((await worker.unfinished())[0]) is not None
    assert await worker.claim((await worker.unfinished())[0]) is None
    job = await queue.load(job_id)
    assert job.state is JobState.FAILED
    assert "attempts_exhausted" in job.result
    assert await kinds(log, job_id) == ["queued", "started", "failed"]


async def test_a_job_handed_back_keeps_its_place_and_its_attempts(
    connection: RedisConnection, settings: Settings, queue: JobQueue
) -> None:
    worker, other = await open_worker(connection, settings), await open_worker(connection, settings, "two")
    first, second = (await queue.submit(PARAMS)).job_id, (await queue.submit(PARAMS)).job_id
    claim = await take(worker)
    assert claim.job_id == first
    assert await run(connection, worker.calls.release(claim)) == 1
    assert (await queue.load(first)).state is JobState.QUEUED
    item = await other.take(0.2)
    assert item is not None
    assert item.job_id == first
    again = await other.claim(item)
    assert again is not None
    assert again.attempt == 1
    assert again.is_restart
    assert (await take(other)).job_id == second


async def test_a_waiting_job_is_canceled_at_once(
    connection: RedisConnection, settings: Settings, queue: JobQueue, log: EventLog
) -> None:
    worker = await open_worker(connection, settings)
    job_id = (await queue.submit(PARAMS)).job_id
    assert await queue.cancel(await queue.load(job_id)) is JobState.CANCELED
    assert await queue.cancel(await queue.load(job_id)) is JobState.CANCELED
    assert await kinds(log, job_id) == ["queued", "canceled"]
    assert await worker.take(0.05) is None


async def test_the_worker_of_a_running_job_hears_of_its_cancel_in_three_ways(
    connection: RedisConnection, settings: Settings, queue: JobQueue
) -> None:
    worker = await open_worker(connection, settings)
    job_id = (await queue.submit(PARAMS)).job_id
    claim = await take(worker)
    job = await queue.load(job_id)
    assert await queue.cancel(job) is await queue.cancel(job) is JobState.RUNNING
    assert await ControlStream(connection, "one").read(0.2) == [job_id]
    assert await run(connection, worker.calls.emit(claim, 2, [NewEvent("patches", "{}")])) == [3, 1]
    assert await run(connection, worker.calls.renew(claim)) == 1


async def test_a_canceled_job_whose_worker_died_ends_when_it_is_taken_over(
    connection: RedisConnection, settings: Settings, queue: JobQueue
) -> None:
    worker = await open_worker(connection, settings)
    job_id = (await queue.submit(PARAMS)).job_id
    await take(worker)
    await queue.cancel(await queue.load(job_id))
    assert await worker.claim((await worker.unfinished())[0]) is None
    assert (await queue.load(job_id)).state is JobState.CANCELED


async def test_a_job_past_its_deadline_fails_before_it_is_begun(
    connection: RedisConnection, settings: Settings
) -> None:
    hasty = settings.model_copy(update={"job_deadline": 0.05})
    queue, worker = JobQueue(connection, hasty), await open_worker(connection, hasty)
    job_id = (await queue.submit(PARAMS)).job_id
    await asyncio.sleep(0.1)
    item = await worker.take(0.2)
    assert item is not None
    assert await worker.claim(item) is None
    assert "deadline_exceeded" in (await queue.load(job_id)).result


async def test_the_depth_limit_counts_waiting_and_running_jobs(connection: RedisConnection, settings: Settings) -> None:
    small = settings.model_copy(update={"queue_depth": 2})
    queue, worker = JobQueue(connection, small), await open_worker(connection, small)
    await queue.submit(PARAMS)
    claim = await take(worker)
    await queue.submit(PARAMS)
    with pytest.raises(ModelNotReady, match="no worker is alive"):
        await queue.submit(PARAMS)
    await Registry(connection).workers.beat(WorkerInfo(name="one", models=("tiny",), slots=2, step_seconds=1.0), 5)
    with pytest.raises(QueueFull) as refusal:
        await queue.submit(PARAMS)
    work = 2 * PARAMS.n * PARAMS.steps * PARAMS.rows_per_image
    assert refusal.value.retry_after == pytest.approx(MARGIN * work / 2), "two slots do two row-steps a second"
    await run(connection, worker.calls.finish(claim, JobState.COMPLETED, "{}"))
    await queue.submit(PARAMS)


async def test_those_who_are_refused_come_back_one_after_the_other(
    connection: RedisConnection, settings: Settings
) -> None:
    """All were told the same moment: two found room, and the others had used up one of their attempts."""
    queue = JobQueue(connection, settings.model_copy(update={"queue_depth": 2}))
    await Registry(connection).workers.beat(WorkerInfo(name="one", models=("tiny",), slots=2, step_seconds=1.0), 5)
    steady = PARAMS.model_copy(update={"steps": 100})
    work = 2 * steady.n * steady.steps * steady.rows_per_image
    for _ in range(2):
        await queue.submit(steady)
    told: list[float] = []
    for _ in range(40):
        with pytest.raises(QueueFull) as refusal:
            await queue.submit(steady)
        assert refusal.value.retry_after is not None
        told.append(refusal.value.retry_after)
    first = MARGIN * work / 2  # two slots do two row-steps a second
    # Each of the two jobs' places is free for somebody in turn; who hammers makes nobody wait more than thrice as long.
    assert told[:5] == pytest.approx([first * share for share in (1, 1.5, 2, 2.5, 3)], rel=0.05)
    assert first * 0.95 <= min(told) <= max(told) <= first * 3
    assert len({round(seconds / first, 1) for seconds in told}) >= 4
    ttl = await connection.once("PTTL", keys.line_key("tiny"))
    assert 0 < ttl <= first * 3000


async def test_a_deadline_below_a_millisecond_is_one(connection: RedisConnection, queue: JobQueue) -> None:
    """It was cut off to 0, which stands for none."""
    for seconds in (1e-9, 0.0004, 0.001, 5e-324):
        job = await queue.submit(PARAMS.model_copy(update={"deadline": seconds}))
        created, deadline = await connection.once("HMGET", keys.job_key(job.job_id), "created", "deadline")
        assert int(deadline) == int(created) + 1
    never = await queue.submit(PARAMS)
    assert await connection.once("HGET", keys.job_key(never.job_id), "deadline") == b"0"


async def test_an_idempotency_key_gives_the_first_job_again(connection: RedisConnection, queue: JobQueue) -> None:
    first = await queue.submit(PARAMS, Idempotency("key", "request"))
    again = await queue.submit(PARAMS, Idempotency("key", "request"))
    assert (again.job_id, first.is_replay, again.is_replay) == (first.job_id, False, True)
    assert await queue.depth("tiny") == 1
    with pytest.raises(IdempotencyConflict):
        await queue.submit(PARAMS, Idempotency("key", "another request"))


async def test_expired_is_not_unknown(connection: RedisConnection, settings: Settings) -> None:
    brief = settings.model_copy(update={"result_ttl": 0.05})
    queue, worker = JobQueue(connection, brief), await open_worker(connection, brief)
    job_id = (await queue.submit(PARAMS)).job_id
    await run(connection, worker.calls.finish(await take(worker), JobState.COMPLETED, "{}", [b"png"]))
    await asyncio.sleep(0.1)
    with pytest.raises(JobExpired):
        await queue.load(job_id)
    with pytest.raises(JobNotFound):
        await queue.load("gen-never")
    left = {key.decode() for key in await connection.once("KEYS", f"*{job_id}*")}
    assert left == {keys.tombstone_key(job_id)}


async def test_the_place_counts_jobs_and_work_ahead(
    connection: RedisConnection, settings: Settings, queue: JobQueue
) -> None:
    worker = await open_worker(connection, settings)
    jobs = [await queue.load((await queue.submit(PARAMS)).job_id) for _ in range(3)]
    places = [await queue.look(job.id) for job in jobs]
    work = PARAMS.n * PARAMS.steps * 2
    assert [(place.waiting_ahead, place.work_ahead) for place in places] == [(0, 0), (1, work), (2, 2 * work)]
    await take(worker)
    places = [await queue.look(job.id) for job in jobs]
    assert [(place.waiting_ahead, place.work_ahead) for place in places] == [(0, 0), (0, work), (1, 2 * work)]


async def test_a_place_and_the_job_in_it_are_of_one_moment(
    connection: RedisConnection, settings: Settings, queue: JobQueue
) -> None:
    """A worker took the job after it was looked up and before its place was: the 202 said queued, at no position."""
    worker = await open_worker(connection, settings)
    job = await queue.load((await queue.submit(PARAMS)).job_id)
    claim = await take(worker)
    place = await queue.look(job.id)
    assert (job.state, place.job.state) == (JobState.QUEUED, JobState.RUNNING)
    assert (place.waiting_ahead, place.work_ahead, place.own_work) == (0, 0, PARAMS.n * PARAMS.steps * 2)
    await run(connection, worker.calls.finish(claim, JobState.COMPLETED, "{}", [b"png", b"png"]))
    place = await queue.look(job.id)
    assert (place.job.state, place.waiting_ahead) == (JobState.COMPLETED, None)
    await connection.once("DEL", keys.job_key(job.id))
    with pytest.raises(JobExpired):
        await queue.look(job.id)


async def test_scripts_survive_a_script_flush(connection: RedisConnection, queue: JobQueue) -> None:
    await queue.submit(PARAMS)
    await connection.once("SCRIPT", "FLUSH")
    await queue.submit(PARAMS)
    assert await queue.depth("tiny") == 2


class WatchedConnection(RedisConnection):
    """Tells whether a command ran though one before it in its round trip failed."""

    has_skipped = False

    async def pipeline(self, commands: Sequence[Sequence[Word]]) -> list[Any]:
        replies = await super().pipeline(commands)
        failed = [isinstance(reply, Exception) for reply in replies]
        self.has_skipped |= any(failed) and not all(failed)
        return replies


@pytest.mark.parametrize("known", [(), ("emit",), ("finish",), ("emit", "finish")])
async def test_scripts_of_one_round_trip_run_in_their_order_whichever_redis_knows(
    connection: RedisConnection, queue: JobQueue, log: EventLog, settings: Settings, known: tuple[str, ...]
) -> None:
    """Where a script is not known and the next one is, an event would come before what it tells of, or not at all."""
    worker = await open_worker(connection, settings)
    job = await queue.submit(PARAMS)
    claim = await take(worker)
    await connection.once("SCRIPT", "FLUSH")
    for name in known:
        await connection.once("SCRIPT", "LOAD", scripts.script(name).text)
    calls = [
        worker.calls.keep(claim, [Kept(True, "frame:0", b"png")]),
        worker.calls.emit(claim, claim.seq, [NewEvent("frame", "{}")]),
        worker.calls.finish(claim, JobState.COMPLETED, "{}", [b"png", b"png"]),
    ]
    assert settings.redis_url is not None
    watched = WatchedConnection(settings.redis_url)
    assert (await scripts.run_many(watched, calls))[-1] == 1
    await watched.close()
    assert not watched.has_skipped
    assert await connection.once("HGET", keys.outputs_key(job.job_id), "frame:0") == b"png"
    assert await kinds(log, job.job_id) == ["queued", "started", "frame", "completed"]


async def test_without_redis_a_submit_fails_quickly(settings: Settings) -> None:
    connection = RedisConnection("unix:///nowhere/redis.sock")
    with pytest.raises(RedisUnavailable):
        await asyncio.wait_for(JobQueue(connection, settings).submit(PARAMS), HANG_SECONDS)
    assert not await connection.is_alive()
    await connection.close()


async def test_a_blocking_read_outlasts_the_command_timeout(redis_server: Any) -> None:
    """redis-py 8 gives up blocking reads after 5 s and starts them again: ours has no socket timeout."""
    connection = RedisConnection(redis_server.url, command_timeout=0.5)
    reply = await connection.block(1.0, "XREAD", "BLOCK", 1000, "STREAMS", "nothing", "$")
    assert reply is None
    await connection.close()


def test_the_table_of_transitions_names_what_the_scripts_do() -> None:
    assert TRANSITIONS[JobState.QUEUED] == {JobState.RUNNING, JobState.CANCELED, JobState.FAILED}


@pytest.mark.parametrize("aging", [0.1, 3000, 1e9])
async def test_a_place_in_a_long_queue_is_exact_near_both_ends_and_close_between(
    connection: RedisConnection, settings: Settings, aging: float
) -> None:
    """More than the scripts look at, in two queues; the others' order is told by hand from levels and ages."""
    long = settings.model_copy(update={"queue_depth": 5000, "priority_aging_seconds": aging})
    queue = JobQueue(connection, long)
    await open_worker(connection, long)
    kinds = ["high" if number % 8 == 5 else "normal" for number in range(720)]
    ids = [
        (await queue.submit(PARAMS.model_copy(update={"priority": kind, "steps": 1 + number % 3}))).job_id
        for number, kind in enumerate(kinds)
    ]
    jobs = [await queue.load(job_id) for job_id in ids]
    ages = [(*map(int, job.entry.split("-")), kind) for job, kind in zip(jobs, kinds)]  # high before normal
    work = [PARAMS.n * (1 + number % 3) * PARAMS.rows_per_image for number in range(len(jobs))]
    if aging == 0.1:
        await asyncio.sleep(0.25)  # all have waited for so long that they count as high: the oldest is next
    for number in (0, 5, 40, 60, 350, 357, 700, 717, 719):
        is_equal = aging == 0.1
        ahead = [
            other
            for other, kind in enumerate(kinds)
            if (ages[other] < ages[number] if is_equal or kind == kinds[number] else kind == "high")
        ]
        place = await queue.look(jobs[number].id)
        exact = number in {0, 5, 40, 60, 719} or (kinds[number] == "high" and not is_equal)
        assert place.waiting_ahead == pytest.approx(len(ahead), rel=0 if exact else 0.25)
        assert place.work_ahead == pytest.approx(sum(work[other] for other in ahead), rel=0.02 if exact else 0.25)


async def test_the_work_of_a_long_queue_is_known_when_a_job_is_refused(
    connection: RedisConnection, settings: Settings
) -> None:
    queue = JobQueue(connection, settings.model_copy(update={"queue_depth": 500}))
    for number in range(500):
        await queue.submit(PARAMS.model_copy(update={"steps": 1 + number % 3}))
    worker = WorkerInfo(name="one", models=("tiny",), slots=4, step_seconds=0.1)
    await Registry(connection).workers.beat(worker, 15)
    with pytest.raises(QueueFull, match="500 jobs wait or run already") as caught:
        await queue.submit(PARAMS)
    assert caught.value.retry_after is not None
