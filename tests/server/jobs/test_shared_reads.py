"""However many clients watch a job, one read at a time serves all of them."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from oar_wire.tenant import Tenant
from server.jobs.connection import RedisConnection
from server.jobs.events import EventLog
from server.jobs.hub import EventHub
from server.jobs.queue import JobQueue
from server.jobs.shared_reads import SharedReads
from server.settings import Settings
from tests.server.jobs.protocol import PARAMS

pytestmark = pytest.mark.anyio


class Source:
    """Something that is read, where each read lasts until it is let go on."""

    def __init__(self) -> None:
        self.value = 0
        self.num_reads = 0
        self.go_on = asyncio.Semaphore(0)

    async def read(self, key: str) -> str:
        self.num_reads += 1
        found = f"{key}{self.value}"
        await self.go_on.acquire()
        if self.value < 0:
            raise ValueError(found)
        return found


def ask(reads: SharedReads[str, str], count: int, key: str = "a") -> list[asyncio.Task[str]]:
    return [asyncio.create_task(reads.get(key)) for _ in range(count)]


async def until_read(source: Source, count: int) -> None:
    while source.num_reads < count:
        await asyncio.sleep(0)


async def test_whoever_asks_at_one_moment_shares_a_read() -> None:
    source = Source()
    asked = ask(SharedReads(source.read), 50)
    source.go_on.release()
    assert await asyncio.gather(*asked) == ["a0"] * 50
    assert source.num_reads == 1


async def test_an_answer_is_never_older_than_its_question() -> None:
    source = Source()
    reads = SharedReads(source.read)
    first = ask(reads, 1)
    await until_read(source, 1)
    source.value = 1
    second = ask(reads, 50)
    source.go_on.release()
    await until_read(source, 2)
    source.value = 2
    third = ask(reads, 50)
    source.go_on.release()
    source.go_on.release()
    assert await asyncio.gather(*first, *second, *third) == ["a0", *["a1"] * 50, *["a2"] * 50]
    assert source.num_reads == 3


async def test_different_things_do_not_wait_for_each_other() -> None:
    source = Source()
    reads = SharedReads(source.read)
    (first,) = ask(reads, 1, "a")
    await until_read(source, 1)
    (other,) = ask(reads, 1, "b")
    await until_read(source, 2)
    source.go_on.release()
    source.go_on.release()
    assert (await first, await other) == ("a0", "b0")


async def test_all_hear_of_an_error_and_the_next_read_is_a_new_one() -> None:
    source = Source()
    reads = SharedReads(source.read)
    source.value = -1
    source.go_on.release()
    outcomes = await asyncio.gather(*ask(reads, 5), return_exceptions=True)
    assert all(isinstance(outcome, ValueError) for outcome in outcomes)
    source.value = 1
    source.go_on.release()
    assert await reads.get("a") == "a1"


async def test_a_reader_that_leaves_spoils_nothing_for_the_others() -> None:
    source = Source()
    asked = ask(SharedReads(source.read), 3)
    await until_read(source, 1)
    asked[0].cancel()
    source.go_on.release()
    assert await asyncio.gather(*asked[1:]) == ["a0"] * 2


async def calls(connection: RedisConnection, command: str) -> int:
    stats: bytes = await connection.once("INFO", "commandstats")
    found = [line for line in stats.decode().splitlines() if line.startswith(f"cmdstat_{command}:")]
    return int(found[0].split("calls=")[1].split(",")[0]) if found else 0


async def test_many_who_watch_a_job_cost_as_many_reads_as_one(connection: RedisConnection, settings: Settings) -> None:
    queue, log, hub = JobQueue(connection, settings), EventLog(connection), EventHub(connection)
    everybody = queue.of(Tenant(name="one"))
    job_id = (await everybody.submit(PARAMS)).job_id

    async def watch(stack: AsyncExitStack) -> int:
        """As a stream begins."""
        await queue.of(Tenant(name="one")).load(job_id)
        await stack.enter_async_context(hub.watch(job_id, 0))
        return len(await log.read(job_id, 0))

    for readers in (1, 200):
        await connection.once("CONFIG", "RESETSTAT")
        async with AsyncExitStack() as stack:
            assert await asyncio.gather(*(watch(stack) for _ in range(readers))) == [1] * readers
        asked = [await calls(connection, command) for command in ("hgetall", "hget", "xrange")]
        assert asked == [1, 1, 2], "the record, the newest number, and the log's two streams"
