"""Ends what no worker is there to end: queued jobs past their deadline, canceled jobs whose worker died.

Every API process runs one sweeper; a lease in Redis lets exactly one of them work. The lease only saves work: two that
swept at once would do no harm, for the script that ends a job lets the first one win.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable

from redis.exceptions import RedisError

from server.errors import RedisUnavailable
from server.jobs import keys, scripts
from server.jobs.connection import RedisConnection
from server.jobs.queue import job_keys, lifetimes, milliseconds
from server.jobs.worker_queue import LATE
from server.settings import Settings

logger = logging.getLogger(__name__)

BATCH = 100
LEASE_ROUNDS = 3  # rounds that a silent sweeper keeps its lease


class Sweeper:
    def __init__(
        self, connection: RedisConnection, settings: Settings, on_ended: Callable[[str], None] = lambda _: None
    ) -> None:
        """`on_ended` hears the final state of each job that this sweeper ended."""
        self.name = secrets.token_hex(8)
        self._connection = connection
        self._settings = settings
        self._on_ended = on_ended

    async def run(self) -> None:
        """Sweeps until it is cancelled."""
        while True:
            try:
                while await self.sweep() == BATCH:
                    pass
            except (RedisUnavailable, RedisError) as error:
                logger.warning("cannot sweep: %s", error)
            await asyncio.sleep(self._settings.sweep_seconds)

    async def sweep(self) -> int | None:
        """Looks at the jobs whose time has come, `BATCH` at most; None when another process has the lease."""
        lease = milliseconds(self._settings.sweep_seconds * LEASE_ROUNDS)
        reply = await scripts.run(self._connection, "sweep", [keys.SWEEPER, keys.DUE], [self.name, lease, BATCH])
        if not reply[0]:
            return None
        for job_id in reply[1:]:
            await self._look_at(job_id.decode())
        return len(reply) - 1

    async def _look_at(self, job_id: str) -> None:
        where = await self._connection.again("HMGET", keys.job(job_id), keys.Field.MODEL, keys.Field.PRIORITY)
        model, priority = ((word or b"").decode() for word in where)
        reply, is_ended = await scripts.run(
            self._connection,
            "expire",
            job_keys(job_id, model, priority),
            [
                *(keys.GROUP, job_id, milliseconds(self._settings.lease_seconds), LATE.body()),
                *lifetimes(self._settings),
            ],
        )
        state = reply.decode()
        logger.info("swept job=%s state=%s", job_id, state or "gone")
        if is_ended:
            self._on_ended(state)
