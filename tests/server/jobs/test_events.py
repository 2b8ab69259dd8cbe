import asyncio
from collections.abc import AsyncIterator

import pytest

from server.errors import RedisUnavailable
from server.jobs import keys
from server.jobs.connection import RedisConnection
from server.jobs.events import EventHub, EventLog, StoredEvent
from server.schemas.events import EVENTS, Completed, Failed, Patches, PatchInfo
from server.schemas.generation import Failure

pytestmark = pytest.mark.anyio


@pytest.fixture
async def hub(connection: RedisConnection) -> AsyncIterator[EventHub]:
    hub = EventHub(connection)
    task = asyncio.create_task(hub.run())
    yield hub
    task.cancel()
    await asyncio.wait([task])


async def append(connection: RedisConnection, job_id: str, seq: int, kind: str = "patches") -> None:
    words = ("XADD", keys.events(job_id), f"{seq}-0", "type", kind, "at", 1000 + seq, "body", "{}")
    await connection.once(*words)


async def test_read_gives_the_events_after_a_number_in_order(connection: RedisConnection) -> None:
    for seq in range(1, 11):
        await append(connection, "job", seq)
    log = EventLog(connection)
    assert [event.seq for event in await log.read("job", after=3, count=4)] == [4, 5, 6, 7]
    assert [event.seq for event in await log.read_all("job")] == list(range(1, 11))
    assert await log.read("job", after=10) == []


async def test_the_hub_wakes_every_reader_of_a_log_and_no_other(connection: RedisConnection, hub: EventHub) -> None:
    async with hub.watch("one", 0), hub.watch("one", 0), hub.watch("two", 0):
        readers = [asyncio.create_task(hub.wait("one", 0, 5)) for _ in range(3)]
        other = asyncio.create_task(hub.wait("two", 0, 0.3))
        await asyncio.sleep(0.05)
        await append(connection, "one", 1)
        assert await asyncio.gather(*readers) == [True] * 3
        assert await other is False


async def test_the_hub_sees_what_was_written_before_it_watched(connection: RedisConnection, hub: EventHub) -> None:
    await append(connection, "job", 1)
    async with hub.watch("job", 0):
        assert await hub.wait("job", 0, 2)
        assert not await hub.wait("job", 1, 0.1)


async def test_a_log_that_is_watched_late_is_noticed_at_once(connection: RedisConnection, hub: EventHub) -> None:
    """The fan-in is inside a blocking read of other logs then."""
    await asyncio.sleep(0.1)
    start = asyncio.get_running_loop().time()
    async with hub.watch("job", 0):
        await append(connection, "job", 1)
        assert await hub.wait("job", 0, 5)
    assert asyncio.get_running_loop().time() - start < 4, "before the blocking read ends by itself"


async def test_who_has_kept_up_gets_the_events_of_the_latest_read(connection: RedisConnection, hub: EventHub) -> None:
    async with hub.watch("job", 0):
        for seq in (1, 2):
            assert not hub.news("job", seq - 1)
            await append(connection, "job", seq)
            assert await hub.wait("job", seq - 1, 5)
            assert [event.seq for event in hub.news("job", seq - 1)] == [seq]
        assert list(hub.news("job", 1)) == await EventLog(connection).read("job", 1)
        assert not hub.news("job", 0), "whoever is behind has to ask the log"


async def test_a_number_that_is_missing_is_looked_up(connection: RedisConnection, hub: EventHub) -> None:
    """It may be an event that this read did not bring."""
    async with hub.watch("job", 0):
        await append(connection, "job", 2)
        assert await hub.wait("job", 0, 5)
        assert not hub.news("job", 0)


async def test_waiters_hear_that_redis_is_gone() -> None:
    connection = RedisConnection("unix:///nowhere/redis.sock")
    hub = EventHub(connection)
    task = asyncio.create_task(hub.run())
    with pytest.raises(RedisUnavailable):
        async with hub.watch("job", 0):
            await hub.wait("job", 0, 5)
    task.cancel()
    await asyncio.wait([task])
    await connection.close()


@pytest.mark.parametrize(
    "event",
    [
        Patches(
            image=1, step=2, steps=3,
            patches=(PatchInfo(rank=0, position=5, row=1, col=2, token=9, confidence=0.5),),
        ),
        Completed(images=(), seconds=1.5),
        Failed(error=Failure(code="invalid_prompt", message='it says "no"', field="prompt")),
    ],
)  # fmt: skip
async def test_a_stored_event_reads_back_as_it_was_written(event: Patches | Completed | Failed) -> None:
    stored = StoredEvent("gen-1", 4, event.type, 12.5, event.body())
    assert stored.parse() == event.model_copy(update={"seq": 4, "job_id": "gen-1", "at": 12.5})


async def test_an_event_without_fields_is_valid_json() -> None:
    assert EVENTS.validate_json(StoredEvent("gen-1", 1, "queued", 1.0, "{}").to_json()).seq == 1
