"""The hub tells every reader of a job that there is more, soon, and asks Redis for no more than that takes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from oar_wire.errors import RedisUnavailable
from server.jobs import activity, keys, scripts
from server.jobs.connection import RedisConnection, Word
from server.jobs.events import EventLog
from server.jobs.hub import MOST_LOGS, EventHub
from server.jobs.job import JobState
from server.jobs.keys import Field
from server.jobs.log import NewEvent
from server.jobs.queue import JobQueue
from server.settings import Settings
from server.tasks import stop_tasks
from tests.server.jobs.protocol import open_worker, params, run, take
from tests.waiting import HANG_SECONDS, wait_until

pytestmark = pytest.mark.anyio

TELL_OF_THREE = "for i = 1, 3 do redis.call('XADD', KEYS[1], '*', 'job', 'other' .. i) end"


@pytest.fixture
async def hub(connection: RedisConnection, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EventHub]:
    """It lives by the news alone."""
    monkeypatch.setattr(activity, "SWEEP_SECONDS", 10 * HANG_SECONDS)
    async with running(EventHub(connection)) as hub:
        yield hub


@asynccontextmanager
async def running(hub: EventHub) -> AsyncIterator[EventHub]:
    task = asyncio.create_task(hub.run())
    try:
        yield hub
    finally:
        await stop_tasks([task])


async def submit(jobs: JobQueue) -> str:
    return (await jobs.submit(params())).job_id


async def write(connection: RedisConnection, job_id: str, seq: int) -> None:
    """An event that nobody is told of."""
    await connection.pipeline(
        [
            ("HSET", keys.job_key(job_id), Field.SEQ, seq),
            ("XADD", keys.events_key(job_id), f"{seq}-0", "type", "patches", "at", 1000 + seq, "body", "{}"),
        ]
    )


async def append(connection: RedisConnection, job_id: str, seq: int) -> None:
    """As the scripts do; they are tested in whole where jobs are."""
    await write(connection, job_id, seq)
    await connection.once("XADD", keys.ACTIVITY, "*", "job", job_id)


async def until_it_waits(connection: RedisConnection) -> None:
    """Until the hub has looked at all that it knew of, and waits for news."""

    async def is_waiting() -> bool:
        facts: bytes = await connection.once("INFO", "clients")
        return b"blocked_clients:0" not in facts

    await wait_until(is_waiting)


async def test_the_hub_wakes_every_reader_of_a_log_and_no_other(connection: RedisConnection, hub: EventHub) -> None:
    async with hub.watch("one", 0), hub.watch("one", 0), hub.watch("two", 0):
        readers = [asyncio.create_task(hub.wait("one", 0, HANG_SECONDS)) for _ in range(3)]
        other = asyncio.create_task(hub.wait("two", 0, 0.3))
        await until_it_waits(connection)
        await append(connection, "one", 1)
        assert await asyncio.gather(*readers) == [True] * 3
        assert await other is False


async def test_the_hub_sees_what_was_written_before_it_watched(connection: RedisConnection, hub: EventHub) -> None:
    await append(connection, "job", 1)
    async with hub.watch("job", 0):
        assert await hub.wait("job", 0, HANG_SECONDS)
        assert not await hub.wait("job", 1, 0.1)


async def test_a_log_that_is_watched_late_is_noticed_at_once(connection: RedisConnection, hub: EventHub) -> None:
    """The hub waits for news of other jobs then."""
    async with hub.watch("other", 0):
        await until_it_waits(connection)
        async with hub.watch("job", 0):
            await append(connection, "job", 1)
            assert await hub.wait("job", 0, HANG_SECONDS)


async def test_what_the_scripts_write_is_news(connection: RedisConnection, settings: Settings, hub: EventHub) -> None:
    worker, jobs = await open_worker(connection, settings), JobQueue(connection, settings)
    job = await submit(jobs)
    async with hub.watch(job, 0):
        assert await hub.wait(job, 0, HANG_SECONDS), "queued"
        claim = await take(worker)
        assert await hub.wait(job, 1, HANG_SECONDS), "started"
        await run(connection, worker.calls.emit(claim, 2, [NewEvent("patches", "{}"), NewEvent("preview", "{}")]))
        assert await hub.wait(job, 3, HANG_SECONDS), "patches and a preview"
        await run(connection, worker.calls.finish(claim, JobState.COMPLETED, "{}"))
        assert await hub.wait(job, 4, HANG_SECONDS), "completed"
    told = await connection.once("XRANGE", keys.ACTIVITY, "-", "+")
    assert [words for _, words in told] == [[b"job", job.encode()]] * 4, "once for each script"


async def test_only_logs_with_something_new_are_asked_for(
    connection: RedisConnection, hub: EventHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are watched."""
    asked: list[tuple[Word, ...]] = []
    again = connection.again

    async def spy(*words: Word) -> Any:
        asked.append(words)
        return await again(*words)

    async with AsyncExitStack() as stack:
        for number in range(300):
            await stack.enter_async_context(hub.watch(f"job{number}", 0))
        await until_it_waits(connection)
        monkeypatch.setattr(connection, "again", spy)
        await append(connection, "job7", 1)
        await append(connection, "elsewhere", 1)
        assert await hub.wait("job7", 0, HANG_SECONDS)
        await until_it_waits(connection)
    assert asked == [("XREAD", "STREAMS", "ev:job7", "pv:job7", "0-0", "0-0")]


async def test_nothing_is_read_while_nobody_watches(
    connection: RedisConnection, hub: EventHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hub.watch("job", 0):
        await append(connection, "job", 1)
        assert await hub.wait("job", 0, HANG_SECONDS)
    await append(connection, "job", 2)  # ends the read that is under way
    await asyncio.sleep(0.1)
    reads: list[tuple[Word, ...]] = []
    block = connection.block

    async def spy(seconds: float, *words: Word) -> Any:
        reads.append(words)
        return await block(seconds, *words)

    monkeypatch.setattr(connection, "block", spy)
    for seq in range(3, 6):
        await append(connection, "job", seq)
    await asyncio.sleep(0.1)
    assert not reads
    async with hub.watch("job", 5):
        await append(connection, "job", 6)
        assert await hub.wait("job", 5, HANG_SECONDS), "and it goes on"


async def test_a_redis_that_is_back_is_noticed_by_who_watches_first(
    connection: RedisConnection, hub: EventHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else asked meanwhile."""
    block = connection.block

    async def fail(*_: object) -> Any:
        raise RedisConnectionError("away")

    monkeypatch.setattr(connection, "block", fail)
    with pytest.raises(RedisUnavailable):
        async with hub.watch("job", 0):
            await hub.wait("job", 0, HANG_SECONDS)
    monkeypatch.setattr(connection, "block", block)
    async with hub.watch("job", 0):
        await append(connection, "job", 1)
        assert await hub.wait("job", 0, HANG_SECONDS)


async def test_what_no_news_told_of_is_found_by_the_sweep(
    connection: RedisConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker of before there were news, for one."""
    monkeypatch.setattr(activity, "SWEEP_SECONDS", 0.2)
    async with running(EventHub(connection)) as hub, AsyncExitStack() as stack:
        jobs = [f"job{number}" for number in range(2 * MOST_LOGS + 1)]
        for job in jobs:
            await stack.enter_async_context(hub.watch(job, 0))
        for job in jobs:
            await write(connection, job, 1)
        assert all([await hub.wait(job, 0, HANG_SECONDS) for job in jobs])


async def test_news_that_were_trimmed_before_they_were_read_cost_nothing_but_a_look_at_all_logs(
    connection: RedisConnection, hub: EventHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "ACTIVITY_LENGTH", 3)
    async with hub.watch("job", 0):
        await until_it_waits(connection)
        await write(connection, "job", 1)
        # At once, so that the hub finds all of them: had there been more, that of the job would be gone.
        await connection.once("EVAL", TELL_OF_THREE, 1, keys.ACTIVITY)
        assert await hub.wait("job", 0, HANG_SECONDS)


async def test_the_news_are_bounded(connection: RedisConnection, settings: Settings) -> None:
    worker = await open_worker(connection, settings)
    await submit(JobQueue(connection, settings))
    claim = await take(worker)
    for seq in range(2, 2 + 2 * keys.ACTIVITY_LENGTH, 1000):
        calls = [worker.calls.emit(claim, number, [NewEvent("patches", "{}")]) for number in range(seq, seq + 1000)]
        await scripts.run_many(connection, calls)
    length: int = await connection.once("XLEN", keys.ACTIVITY)
    assert keys.ACTIVITY_LENGTH <= length < 1.1 * keys.ACTIVITY_LENGTH


async def test_who_has_kept_up_gets_the_events_of_the_latest_read(connection: RedisConnection, hub: EventHub) -> None:
    async with hub.watch("job", 0):
        for seq in (1, 2):
            assert not hub.latest("job", seq - 1)
            await append(connection, "job", seq)
            assert await hub.wait("job", seq - 1, HANG_SECONDS)
            assert [event.seq for event in hub.latest("job", seq - 1)] == [seq]
        assert list(hub.latest("job", 1)) == await EventLog(connection).read("job", 1)
        assert not hub.latest("job", 0), "whoever is behind has to ask the log"


async def test_a_number_that_is_missing_is_looked_up(connection: RedisConnection, hub: EventHub) -> None:
    """It may be an event that this read did not bring."""
    async with hub.watch("job", 0):
        await append(connection, "job", 2)
        assert await hub.wait("job", 0, HANG_SECONDS)
        assert not hub.latest("job", 0)


async def test_waiters_hear_that_redis_is_gone() -> None:
    connection = RedisConnection("unix:///nowhere/redis.sock")
    async with running(EventHub(connection)) as hub:
        with pytest.raises(RedisUnavailable):
            async with hub.watch("job", 0):
                await hub.wait("job", 0, HANG_SECONDS)
    await connection.close()
