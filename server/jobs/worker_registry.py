"""Facts that workers publish about themselves: heartbeats and metrics."""

import time
from collections.abc import Callable

from oar_wire.model import WorkerInfo
from server.jobs import keys
from server.jobs.connection import RedisConnection
from server.jobs.lease import LeaseWatch

FORGET_SECONDS = 3600.0  # after which the name of a silent worker is dropped


class WorkerRegistry:
    def __init__(self, connection: RedisConnection, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` counts monotonic seconds; whether a worker is alive is judged by it."""
        self._connection = connection
        self._clock = clock
        self._beats: dict[str, LeaseWatch] = {}  # by the worker's name

    async def beat(self, info: WorkerInfo, ttl: float) -> None:
        await self._connection.again("SET", keys.worker_key(info.name), info.model_dump_json(), "PX", int(ttl * 1000))
        await self._connection.again("ZADD", keys.WORKERS, time.time(), info.name)
        await self._connection.again("ZREMRANGEBYSCORE", keys.WORKERS, "-inf", time.time() - FORGET_SECONDS)

    async def leave(self, worker: str) -> None:
        await self._connection.again("DEL", keys.worker_key(worker), keys.metrics_key(worker))
        await self._connection.again("ZREM", keys.WORKERS, worker)

    async def alive(self) -> list[WorkerInfo]:
        """Workers whose heartbeat has neither run out nor stood still, as far as this registry has seen.

        It writes nothing: a Redis that takes no writes answers.
        """
        asked_at = self._clock()
        names: list[bytes] = await self._connection.again("ZRANGE", keys.WORKERS, 0, -1)
        self._forget_others({name.decode() for name in names})
        if not names:
            return []
        texts = await self._connection.again("MGET", *(keys.worker_key(name.decode()) for name in names))
        found = [WorkerInfo.model_validate_json(text) for text in texts if text is not None]
        return [info for info in found if not self._stands_still(info, asked_at)]

    def _forget_others(self, names: set[str]) -> None:
        """Every start of a worker is a new name."""
        for name in self._beats.keys() - names:
            del self._beats[name]

    def _stands_still(self, info: WorkerInfo, asked_at: float) -> bool:
        """Its heartbeat may outlive it by as much as Redis' clock was set back."""
        if not info.lease_seconds:
            return False
        watch = self._beats.setdefault(info.name, LeaseWatch(info.lease_seconds, clock=self._clock))
        return watch.note(info.name, str(info.beats), asked_at)

    async def publish_metrics(self, worker: str, text: bytes, ttl: float) -> None:
        await self._connection.again("SET", keys.metrics_key(worker), text, "PX", int(ttl * 1000))

    async def metrics(self, worker: str) -> str:
        text: bytes | None = await self._connection.again("GET", keys.metrics_key(worker))
        return text.decode() if text else ""
