"""Stopping asyncio tasks, for good."""

import asyncio
from collections.abc import Collection
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
