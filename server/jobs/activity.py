"""The activity stream: ids of the jobs whose log has something new."""

import time
from collections.abc import Set
from typing import Any

from server.jobs import keys
from server.jobs.connection import RedisConnection

# All watched logs are read this often, whatever the activity stream says: for workers that write none, and for entries
# that a slow process finds trimmed.
SWEEP_SECONDS = 2.0


class ActivityStream:
    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._cursor: str | None = None  # None: all logs have to be looked at
        self._sweep_at = 0.0  # monotonic

    def forget(self) -> None:
        """Begins at the stream's end again, with a look at all logs."""
        self._cursor = None

    async def read(self) -> Set[str] | None:
        """Waits for activity, and returns the ids of the jobs; None where any job may have something new."""
        if self._cursor is None:
            self._cursor = await self._newest()
            self._sweep_at = 0.0
        remaining = self._sweep_at - time.monotonic()
        if remaining <= 0:
            self._sweep_at = time.monotonic() + SWEEP_SECONDS
            return None
        words = ("XREAD", "BLOCK", max(1, int(1000 * remaining)), "STREAMS", keys.ACTIVITY, self._cursor)
        streams: list[Any] = await self._connection.block(remaining, *words) or []
        entries: list[tuple[bytes, list[bytes]]] = streams[0][1] if streams else []
        if not entries:
            return frozenset()
        self._cursor = entries[-1][0].decode()
        if len(entries) >= keys.ACTIVITY_LENGTH:
            return None  # older ones may be trimmed
        return {words[1].decode() for _, words in entries}

    async def _newest(self) -> str:
        entries: list[Any] = await self._connection.again("XREVRANGE", keys.ACTIVITY, "+", "-", "COUNT", 1)
        return entries[0][0].decode() if entries else "0-0"
