"""Commands share a bounded number of connections: they wait for their turn, and not for ever."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.exceptions import RedisError

from oar_wire.errors import RedisUnavailable
from server.jobs.connection import RedisConnection, TooManyCommands
from server.jobs.embedded import EmbeddedRedis

pytestmark = pytest.mark.anyio


@pytest.fixture
async def narrow(redis_server: EmbeddedRedis) -> AsyncIterator[RedisConnection]:
    """It has one connection for commands."""
    narrow = RedisConnection(redis_server.url, most_commands=1)
    yield narrow
    await narrow.close()


async def num_clients(connection: RedisConnection) -> int:
    return len((await connection.once("CLIENT", "LIST")).splitlines())


async def test_commands_wait_for_a_connection(connection: RedisConnection, redis_server: EmbeddedRedis) -> None:
    """redis-py's own pool raises at the 101st."""
    before = await num_clients(connection)
    several = RedisConnection(redis_server.url, most_commands=3)
    try:
        pipelines = [several.pipeline([("INCR", "count")] * 2) for _ in range(200)]
        await asyncio.gather(*(several.again("GET", "count") for _ in range(200)), *pipelines)
        assert await several.again("GET", "count") == b"400"
        assert await num_clients(connection) - before <= 3
    finally:
        await several.close()


async def test_a_blocking_read_holds_up_no_command(narrow: RedisConnection) -> None:
    reading = asyncio.create_task(narrow.block(600, "XREAD", "BLOCK", 600_000, "STREAMS", "nothing", "0-0"))
    try:
        for _ in range(3):
            assert await narrow.again("PING") == b"PONG"
        assert not reading.done()
    finally:
        reading.cancel()
        await asyncio.wait([reading])


async def test_the_wait_for_a_connection_is_bounded(tmp_path: Path) -> None:
    """Redis answers nothing: the first command gives up, and those behind it do not wait for each other's end."""
    is_over = asyncio.Event()

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await is_over.wait()
        writer.close()

    async with await asyncio.start_unix_server(say_nothing, tmp_path / "redis.sock"):
        narrow = RedisConnection(f"unix://{tmp_path}/redis.sock", command_timeout=0.3, most_commands=1)
        outcomes = await asyncio.gather(*(narrow.once("PING") for _ in range(20)), return_exceptions=True)
        assert all(isinstance(outcome, RedisError) for outcome in outcomes)
        assert sum(isinstance(outcome, TooManyCommands) for outcome in outcomes) >= 18
        outcomes = await asyncio.gather(*(narrow.again("PING") for _ in range(20)), return_exceptions=True)
        assert all(isinstance(outcome, RedisUnavailable) for outcome in outcomes)
        assert any("no connection was free for 0.3 s" in str(outcome) for outcome in outcomes)
        await narrow.close()
        is_over.set()


async def test_who_leaves_the_line_takes_nobody_elses_turn(narrow: RedisConnection) -> None:
    for _ in range(20):
        waiting = [asyncio.create_task(narrow.again("PING")) for _ in range(20)]
        await asyncio.sleep(0)
        for task in waiting[::2]:
            task.cancel()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert outcomes[1::2] == [b"PONG"] * 10
