"""Ends what no worker is there to end: queued jobs past their deadline, canceled jobs whose worker died.

Every API process runs one sweeper; a lease in Redis lets exactly one of them work. The lease only saves work: two that
swept at once would do no harm, for the script that ends a job lets the first one win. A job that a worker holds is
ended when the sweeper has seen that worker renew nothing for a whole lease, by the sweeper's own monotonic clock.
"""

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Callable
from typing import Any

from redis.exceptions import RedisError

from oar_wire.errors import RedisUnavailable
from server.jobs import keys, scripts
from server.jobs.connection import RedisConnection
from server.jobs.durations import lifetimes, milliseconds
from server.jobs.lease import LeaseWatch
from server.jobs.log import LATE
from server.jobs.queue import LOOKS_A_LEASE
from server.settings import Settings

logger = logging.getLogger(__name__)

BATCH = 100
ALL = 5000  # jobs that are looked at where their times cannot be trusted; Lua returns no more than 8000
STEP_SECONDS = 1.0  # by which Redis' clock was surely set back
LEASE_ROUNDS = 3  # rounds that a silent sweeper keeps its lease


class Sweeper:
    def __init__(
        self,
        connection: RedisConnection,
        settings: Settings,
        on_ended: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_ended` hears the final state of each job that this sweeper ended; `clock` counts monotonic seconds."""
        self.name = secrets.token_hex(8)
        self._connection = connection
        self._settings = settings
        self._on_ended = on_ended
        self._lease_seconds = settings.sweep_seconds * LEASE_ROUNDS
        self._others = LeaseWatch(self._lease_seconds, clock=clock)  # the lease of the sweeper, if another one has it
        self._workers = LeaseWatch(settings.lease_seconds, clock=clock)  # of jobs that their workers have to end
        self._offset = math.inf  # of Redis' clock from the monotonic one, in seconds

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
        ids = await self._due(BATCH)
        if ids is None:
            return None
        for job_id in ids:
            await self._look_at(job_id.decode())
        return min(BATCH, len(ids))

    async def _due(self, most: int, *, look_at_all: bool = False) -> list[bytes] | None:
        """Jobs whose time has come; all that have a time where Redis' clock was set back, or may have been."""
        asked_at = self._others.clock()
        holder, *rest = await self._sweep("", most, look_at_all=look_at_all)
        if holder and self._others.note(keys.SWEEPER, holder.decode(), asked_at):
            holder, *rest = await self._sweep(holder.decode(), most, look_at_all=look_at_all)
        if holder:
            self._offset = math.inf
            return None
        self._others.forget(keys.SWEEPER)
        offset = rest[0] / 1000 - self._others.clock()
        is_set_back = offset < self._offset - STEP_SECONDS
        self._offset = offset
        if is_set_back and not look_at_all:
            return await self._due(ALL, look_at_all=True)
        return rest[1:]

    async def _sweep(self, dead: str, most: int, *, look_at_all: bool) -> list[Any]:
        args = {
            "name": self.name,
            "lease_ms": milliseconds(self._lease_seconds),
            "dead": dead,
            "most": most,
            "all": look_at_all,
        }
        return await scripts.run(self._connection, "sweep", [keys.SWEEPER, keys.DUE], args)

    async def _look_at(self, job_id: str) -> None:
        asked_at = self._workers.clock()
        where = await self._connection.again("HMGET", keys.job_key(job_id), keys.Field.MODEL, keys.Field.PRIORITY)
        model, priority = ((word or b"").decode() for word in where)
        names = keys.job_keys(job_id, model, priority)
        reply, is_ended, holder = await self._expire(job_id, names, "")
        if holder and self._workers.note(job_id, holder.decode(), asked_at):
            reply, is_ended, holder = await self._expire(job_id, names, holder.decode())
        if not holder:
            self._workers.forget(job_id)
        state = reply.decode()
        logger.info("swept job=%s state=%s", job_id, state or "gone")
        if is_ended:
            self._on_ended(state)

    async def _expire(self, job_id: str, names: list[str], dead: str) -> list[Any]:
        args = {
            "id": job_id,
            "look_again_ms": milliseconds(self._settings.lease_seconds / LOOKS_A_LEASE),
            "late": LATE.body(),
            "dead": dead,
            **lifetimes(self._settings),
        }
        return await scripts.run(self._connection, "expire", names, args)
