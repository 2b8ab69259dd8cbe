"""Tells whether Redis takes writes: it goes on reading when its memory is full, when it cannot save, and as a
replica."""

import math
import time

from oar_wire.errors import WritesRefused
from server.jobs import keys
from server.jobs.connection import RedisConnection
from server.jobs.shared_reads import SharedReads

PROBE_MS = 1000


class WriteProbe:
    """Asks at most once in `seconds`, however often it is asked."""

    def __init__(self, connection: RedisConnection, seconds: float) -> None:
        self._connection = connection
        self._seconds = seconds
        self._asked_at = -math.inf  # monotonic
        self._refusal = ""
        self._writes: SharedReads[str, str] = SharedReads(self._write)

    async def check(self) -> None:
        """Raises WritesRefused, or RedisUnavailable."""
        if time.monotonic() - self._asked_at >= self._seconds:
            self._refusal = await self._writes.get(keys.WRITES_PROBE)
            self._asked_at = time.monotonic()
        if self._refusal:
            raise WritesRefused(self._refusal, retry_after=self._seconds)

    async def _write(self, key: str) -> str:
        """Writes, and returns why it was refused; empty where it was not."""
        try:
            await self._connection.again("SET", key, 1, "PX", PROBE_MS)
        except WritesRefused as error:
            return error.message
        return ""
