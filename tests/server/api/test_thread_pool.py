"""Threads that tenants share: shares, turns, a bounded queue, and callers that leave."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from oar_wire.errors import PictureQueueFull, PictureShareFull
from oar_wire.tenant import Tenant, open_tenant
from server.api.thread_pool import FairThreadPool

pytestmark = pytest.mark.anyio

ONE, OTHER = Tenant(name="one", queue_share=0.5), Tenant(name="other", queue_share=0.5)


class Held:
    """Work that goes on until it is released, and remembers in which order it began."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.release = threading.Event()

    def work(self, name: str) -> str:
        self.begun.append(name)
        assert self.release.wait(60)
        return name


@pytest.fixture
async def pool() -> AsyncIterator[FairThreadPool]:
    """Two threads, eight places in the queue: of each a half for a tenant."""
    pool = FairThreadPool("test", 2, 8)
    yield pool
    await pool.close()


@pytest.fixture
async def held(pool: FairThreadPool) -> AsyncIterator[Held]:
    held = Held()
    yield held
    held.release.set()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_so():
            await asyncio.sleep(0.001)


def start(pool: FairThreadPool, held: Held, tenant: Tenant, count: int) -> list[asyncio.Task[str]]:
    return [asyncio.create_task(pool.run(tenant, held.work, f"{tenant.name} {index}")) for index in range(count)]


async def test_a_tenant_has_its_share_of_the_threads(pool: FairThreadPool, held: Held) -> None:
    ones = start(pool, held, ONE, 4)
    await until(lambda: pool.num_waiting == 3)
    others = start(pool, held, OTHER, 1)
    await until(lambda: len(held.begun) == 2)
    assert held.begun == ["one 0", "other 0"], "though three of one came before"
    held.release.set()
    assert await asyncio.gather(*ones, *others) == ["one 0", "one 1", "one 2", "one 3", "other 0"]
    assert (pool.num_running, pool.num_waiting) == (0, 0)


async def test_tenants_take_turns(held: Held) -> None:
    pool = FairThreadPool("test", 1, 100)
    first = start(pool, held, OTHER, 1)
    await until(lambda: pool.num_running == 1)
    rest = [*start(pool, held, ONE, 3), *start(pool, held, OTHER, 3)]
    await until(lambda: pool.num_waiting == 6)
    held.release.set()
    await asyncio.gather(*first, *rest)
    assert held.begun == ["other 0", "one 0", "other 0", "one 1", "other 1", "one 2", "other 2"]
    await pool.close()


async def test_a_tenant_alone_on_an_open_server_has_all_threads(pool: FairThreadPool, held: Held) -> None:
    tasks = start(pool, held, open_tenant(), 2)
    await until(lambda: len(held.begun) == 2)
    held.release.set()
    await asyncio.gather(*tasks)


async def test_a_full_queue_refuses_the_tenant_that_fills_it_and_then_all(pool: FairThreadPool, held: Held) -> None:
    tasks = start(pool, held, ONE, 5)  # one runs, four wait
    await until(lambda: pool.num_waiting == 4)
    with pytest.raises(PictureShareFull) as share:
        await pool.run(ONE, held.work, "too many")
    assert share.value.headers["Retry-After"] == "1"
    assert "one" in share.value.message
    tasks += start(pool, held, OTHER, 5)
    await until(lambda: pool.num_waiting == 8)
    with pytest.raises(PictureQueueFull):
        await pool.run(Tenant(name="third"), held.work, "too many")
    tasks.append(asyncio.create_task(pool.run_accepted(ONE, held.work, "accepted before")))
    await until(lambda: pool.num_waiting == 9)
    held.release.set()
    assert "too many" not in await asyncio.gather(*tasks)


async def test_who_leaves_gives_up_a_place_in_the_queue_and_a_thread_only_when_it_is_free(
    pool: FairThreadPool, held: Held
) -> None:
    running, waiting, last = start(pool, held, ONE, 3)
    await until(lambda: (pool.num_running, pool.num_waiting) == (1, 2))
    for task in (running, waiting):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (pool.num_running, pool.num_waiting) == (1, 1), "its thread goes on"
    held.release.set()
    assert await last == "one 2"
    assert held.begun == ["one 0", "one 2"]
    assert (pool.num_running, pool.num_waiting) == (0, 0)


async def test_who_leaves_at_the_moment_of_its_turn_blocks_nobody(held: Held) -> None:
    pool = FairThreadPool("test", 1, 8)
    first, leaving = start(pool, held, ONE, 2)
    await until(lambda: (pool.num_running, pool.num_waiting) == (1, 1))
    held.release.set()
    while pool.num_waiting:  # looked at before the task whose turn it is can go on
        await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    await first
    assert await pool.run(ONE, held.work, "next") == "next"
    assert held.begun == ["one 0", "next"]
    await pool.close()


async def test_an_error_is_the_callers_and_frees_the_thread(pool: FairThreadPool) -> None:
    for _ in range(5):
        with pytest.raises(ZeroDivisionError):
            await pool.run(ONE, lambda: 1 / 0)
    await until(lambda: pool.num_running == 0)
