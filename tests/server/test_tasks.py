"""Tasks that are stopped stay stopped."""

import asyncio

from server.tasks import stop_tasks
from tests.waiting import HANG_SECONDS


async def lose_cancels(count: int) -> None:
    """As a loop around `asyncio.wait_for` may on Python 3.11."""
    while True:
        try:
            await asyncio.sleep(10 * HANG_SECONDS)
        except asyncio.CancelledError:
            count -= 1
            if count < 0:
                raise


async def fail_when_cancelled() -> None:
    try:
        await asyncio.sleep(10 * HANG_SECONDS)
    except asyncio.CancelledError as error:
        raise ValueError("while cleaning up") from error


def test_a_task_that_loses_a_cancel_is_cancelled_again() -> None:
    async def check() -> None:
        tasks = [asyncio.create_task(lose_cancels(count)) for count in range(3)]
        await asyncio.sleep(0)
        async with asyncio.timeout(HANG_SECONDS):
            await stop_tasks(tasks)
        assert all(task.cancelled() for task in tasks)

    asyncio.run(check())


def test_what_a_task_raises_stays_with_it() -> None:
    async def check() -> None:
        task = asyncio.create_task(fail_when_cancelled())
        await asyncio.sleep(0)
        await stop_tasks([task])
        assert isinstance(task.exception(), ValueError)
        await stop_tasks([])

    asyncio.run(check())
