"""Fill of a model's queue, and which of several API processes says so in `/metrics`."""

import contextlib
import secrets
from dataclasses import dataclass

from oar_wire.errors import WritesRefused
from server.jobs import keys, scripts
from server.jobs.connection import RedisConnection
from server.jobs.lease import LeaseWatch


@dataclass(frozen=True)
class QueueFacts:
    depth: int  # jobs that wait or run
    waiting: int  # jobs that no worker has
    oldest_age: float  # seconds since the oldest waiting one was accepted; 0 when none waits


class QueueGauge:
    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    async def read(self, model: str) -> QueueFacts:
        """Raises RedisUnavailable."""
        reply = await scripts.run(self._connection, "gauge", keys.queue_keys(model), {})
        return QueueFacts(int(reply[0]), int(reply[1]), int(reply[2]) / 1000)


class ExporterLease:
    """Held by one API process, and renewed by each scrape of it: facts about the whole system are exposed once.

    If every replica exposed them, sums over instances would multiply them.
    """

    def __init__(self, connection: RedisConnection, seconds: float) -> None:
        self._connection = connection
        self._milliseconds = int(seconds * 1000)
        self._name = secrets.token_hex(8)
        self._others = LeaseWatch(seconds)
        self._is_held = False

    async def hold(self) -> bool:
        """Takes or renews it; False while another process has it. Raises RedisUnavailable.

        While Redis takes no writes, whoever had it last keeps it.
        """
        with contextlib.suppress(WritesRefused):
            asked_at = self._others.clock()
            holder = await self._hold("")
            if holder and self._others.note(keys.EXPORTER, holder, asked_at):
                holder = await self._hold(holder)
            if not holder:
                self._others.forget(keys.EXPORTER)
            self._is_held = not holder
        return self._is_held

    async def _hold(self, dead: str) -> str:
        """Says how another process holds it; empty where this one does."""
        args = {"name": self._name, "lease_ms": self._milliseconds, "dead": dead}
        holder: bytes = await scripts.run(self._connection, "hold", [keys.EXPORTER], args)
        return holder.decode()

    async def release(self) -> None:
        """Lets the next process that is scraped have it at once. Raises RedisUnavailable."""
        holder: bytes | None = await self._connection.again("GET", keys.EXPORTER)
        if holder is not None and holder.partition(b" ")[0] == self._name.encode():
            await self._connection.again("DEL", keys.EXPORTER)
