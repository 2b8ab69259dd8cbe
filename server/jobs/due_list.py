"""A list of things to do, each with the moment at which it is to be looked at: a sorted set in Redis.

Whoever takes an entry has it for a while. If that process dies, the entry comes back by itself.
"""

from server.jobs import scripts
from server.jobs.connection import RedisConnection
from server.jobs.durations import milliseconds


class DueList:
    """All methods raise RedisUnavailable."""

    def __init__(self, connection: RedisConnection, key: str) -> None:
        self._connection = connection
        self._key = key

    async def take(self, most: int, hold_seconds: float) -> list[str]:
        """Takes ids that are due; nobody else gets them for so long."""
        args = {"most": most, "hold_ms": milliseconds(hold_seconds)}
        taken: list[bytes] = await scripts.run(self._connection, "take_due", [self._key], args)
        return [entry.decode() for entry in taken]

    async def postpone(self, entry: str, seconds: float) -> None:
        """Makes an entry due after so long, and no sooner."""
        await scripts.run(self._connection, "postpone", [self._key], {"id": entry, "wait_ms": milliseconds(seconds)})

    async def remove(self, entry: str) -> None:
        await self._connection.again("ZREM", self._key, entry)

    async def count(self) -> int:
        return await self._connection.again("ZCARD", self._key)
