"""The control stream of a worker: ids of running jobs that somebody cancels."""

from typing import Any

from server.jobs import keys
from server.jobs.connection import RedisConnection


class ControlStream:
    def __init__(self, connection: RedisConnection, worker: str) -> None:
        self._connection = connection
        self._key = keys.control_key(worker)
        self._cursor = "0-0"

    async def read(self, block_seconds: float) -> list[str]:
        """Ids that came since the last call, waiting for one at most `block_seconds`. Raises redis-py's errors."""
        words = ("XREAD", "BLOCK", max(1, int(block_seconds * 1000)), "STREAMS", self._key, self._cursor)
        streams: list[Any] = await self._connection.block(block_seconds, *words) or []
        job_ids: list[str] = []
        for entry, fields in streams[0][1] if streams else ():
            self._cursor = entry.decode()
            job_ids.append(fields[1].decode())
        return job_ids

    def rewind(self) -> None:
        """Reads from the start: the stream was lost, and a new one may begin with lower numbers."""
        self._cursor = "0-0"

    async def remove(self) -> None:
        await self._connection.again("DEL", self._key)
