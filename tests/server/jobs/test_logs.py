"""Both job logs, in Redis and in memory, are one to a worker: the same writes leave the same events."""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

import pytest

from oar_wire.events import Canceled
from server.jobs import keys
from server.jobs.connection import RedisConnection
from server.jobs.events import EventLog, StoredEvent
from server.jobs.job import JobState
from server.jobs.log import Claim, Ending, JobLog, Kept, NewEvent, Order, Write
from server.jobs.memory_log import MemoryJobLog
from server.jobs.queue import JobQueue
from server.jobs.redis_log import RedisJobLog
from server.settings import Settings
from tests.server.jobs.protocol import PARAMS, make_late, open_worker, params, take
from tests.waiting import HANG_SECONDS

pytestmark = pytest.mark.anyio

PATCHES = NewEvent("patches", '{"image":0}')
COMPLETED = Ending(JobState.COMPLETED, '{"images":[],"seconds":0.0}', (b"one", b"two"))


class Bench(Protocol):
    """A job log with one job in it."""

    log: JobLog
    claim: Claim

    async def events(self) -> Sequence[StoredEvent]: ...
    async def cancel(self) -> None: ...
    async def pass_deadline(self) -> None: ...
    async def images(self) -> tuple[Any, ...]: ...


class InRedis:
    def __init__(self, connection: RedisConnection, settings: Settings) -> None:
        self._connection = connection
        self._queue = JobQueue(connection, settings)
        self._settings = settings

    async def open(self) -> "InRedis":
        worker = await open_worker(self._connection, self._settings)
        self.log = RedisJobLog(self._connection, {"tiny": worker})
        job_id = (await self._queue.submit(params(deadline=3600.0), source=b"source")).job_id
        self.claim = await take(worker)
        assert self.claim.job_id == job_id
        return self

    async def events(self) -> Sequence[StoredEvent]:
        return await EventLog(self._connection).read_all(self.claim.job_id)

    async def cancel(self) -> None:
        await self._queue.cancel(await self._queue.load(self.claim.job_id))

    async def pass_deadline(self) -> None:
        await make_late(self._connection, self.claim.job_id)

    async def images(self) -> tuple[Any, ...]:
        names = [keys.image_key(self.claim.job_id, index) for index in range(PARAMS.n)]
        return tuple(await self._connection.once("MGET", *names))


class InMemory:
    def __init__(self) -> None:
        self.now = 1e9
        self.log = MemoryJobLog(lambda: self.now)
        self.claim = self.log.submit("gen-1", params(deadline=3600.0), b"source")

    async def events(self) -> Sequence[StoredEvent]:
        return await self.log.follow(self.claim.job_id)

    async def cancel(self) -> None:
        self.log.cancel(self.claim.job_id)

    async def pass_deadline(self) -> None:
        self.now += 3600

    async def images(self) -> tuple[Any, ...]:
        return self.log.result(self.claim.job_id).images


@pytest.fixture(params=["redis", "memory"])
async def bench(request: pytest.FixtureRequest, connection: RedisConnection, settings: Settings) -> Bench:
    return await InRedis(connection, settings).open() if request.param == "redis" else InMemory()


async def told(bench: Bench) -> list[tuple[int, str, str]]:
    return [(event.seq, event.type, event.body) for event in await bench.events()]


async def test_what_is_written_is_numbered_behind_the_start(bench: Bench) -> None:
    claim = bench.claim
    assert (claim.seq, claim.epoch, claim.is_restart) == (2, 1, False)
    assert await bench.log.source(claim) == b"source"
    assert await bench.log.checkpoint(claim) is not None
    previews = [NewEvent("preview", f'{{"image":{image}}}', image) for image in (0, 1, 0)]
    kept = [Kept(True, "frame:0", b"png")]
    orders = await bench.log.write([Write(claim, claim.seq, kept, (PATCHES, *previews))])
    assert orders == [Order.GO_ON]
    assert await told(bench) == [
        (1, "queued", "{}"),
        (2, "started", '{"attempt":1}'),
        (3, "patches", '{"image":0}'),
        (5, "preview", '{"image":1}'),
        (6, "preview", '{"image":0}'),
    ], "the newest preview of each image is kept"


async def test_an_ending_comes_once_and_with_its_pictures(bench: Bench) -> None:
    claim = bench.claim
    orders = await bench.log.write([Write(claim, claim.seq, (), (PATCHES,), COMPLETED)])
    assert orders == [Order.GO_ON]
    assert (await told(bench))[-1] == (4, "completed", COMPLETED.body)
    assert await bench.images() == (b"one", b"two")
    assert await bench.log.write([Write(claim, 4, (), (PATCHES,))]) == [Order.LOST]
    assert await bench.log.write([Write(claim, 4, (), (), Ending(JobState.CANCELED, Canceled().body()))]) == [
        Order.LOST
    ]
    assert len(await told(bench)) == 4


async def test_a_cancel_and_a_deadline_are_answers_to_what_is_written(bench: Bench) -> None:
    claim = bench.claim
    assert await bench.log.renew([claim]) == [Order.GO_ON]
    await bench.pass_deadline()
    assert await bench.log.renew([claim]) == [Order.EXPIRE]
    assert await bench.log.write([Write(claim, claim.seq, (), (PATCHES,))]) == [Order.EXPIRE]
    await bench.cancel()
    assert await bench.log.renew([claim]) == [Order.CANCEL], "a cancel counts first"
    assert await bench.log.write([Write(claim, 3, (), (PATCHES,))]) == [Order.CANCEL]


async def test_a_log_that_knows_the_job_does_not_call_it_lost(bench: Bench) -> None:
    assert not await bench.log.end_lost(bench.claim, 3, 1.0)


async def test_a_reader_of_the_log_in_memory_waits_for_what_is_new() -> None:
    bench = InMemory()
    reading = asyncio.create_task(bench.log.follow(bench.claim.job_id, 2))
    await asyncio.sleep(0)
    assert not reading.done()
    await bench.log.write([Write(bench.claim, 2, (), (PATCHES,))])
    async with asyncio.timeout(HANG_SECONDS):
        assert [event.type for event in await reading] == ["patches"]
