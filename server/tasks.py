"""Running asyncio tasks beside each other, and stopping them for good."""

import asyncio
from collections.abc import Callable, Collection, Coroutine
from typing import Any

AGAIN_SECONDS = 0.2


async def stop_tasks(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancels the tasks until all of them have ended; what they raised stays with them.

    Once is not enough: `asyncio.wait_for`, which redis-py goes through for every command, loses a cancel that comes
    together with its result (Python 3.11), and a task that loops would then run on for ever.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=AGAIN_SECONDS)


async def until_one_ends(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Runs all until the first ends, stops the others, and raises what the first one raised."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await stop_tasks(tasks)
    for task in tasks:
        # The others may have failed meanwhile, of the same cause: that is to be looked at, and not to be raised.
        error = None if task.cancelled() else task.exception()
        if task in done and error is not None:
            raise error


class BackgroundTasks:
    """Tasks that nobody waits for. `on_failure` is called with what one of them raises."""

    def __init__(self, on_failure: Callable[[BaseException], None]) -> None:
        self._on_failure = on_failure
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_failure(error)
