"""Equal reads at one moment are one read."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SharedReads(Generic[K, V]):
    """Gives everybody who asks for the same thing at one moment the same answer.

    A read that has begun is shared with nobody who asks later: those share the next one, which begins when the first
    has ended. So no answer is older than its question, and any number of readers cost one read after the other.
    """

    def __init__(self, read: Callable[[K], Awaitable[V]]) -> None:
        self._read = read
        self._next: dict[K, asyncio.Task[V]] = {}  # not begun
        self._running: dict[K, asyncio.Task[V]] = {}

    async def get(self, key: K) -> V:
        """Raises what the read raises, to all who share it."""
        task = self._next.get(key)
        if task is None:
            task = self._next[key] = asyncio.create_task(self._run(key, self._running.get(key)))
            task.add_done_callback(_look_at_error)
        return await asyncio.shield(task)  # others may need it when one of them leaves

    async def _run(self, key: K, before: "asyncio.Task[V] | None") -> V:
        if before is not None:
            await asyncio.wait([before])
        self._running[key] = self._next.pop(key)
        try:
            return await self._read(key)
        finally:
            del self._running[key]


def _look_at_error(task: "asyncio.Task[Any]") -> None:
    """Looks at the error: perhaps everybody has left who asked, and asyncio would log it as one that nobody has
    seen."""
    if not task.cancelled():
        task.exception()
