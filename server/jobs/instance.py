"""Notices that Redis has lost its data: after a failover to an empty one, FLUSHALL, or a new volume.

One key holds a random id, written by whoever finds none. Data that is lost takes that id along.
"""

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Callable

from redis.exceptions import RedisError

from oar_wire.errors import RedisUnavailable
from server.jobs import keys
from server.jobs.connection import RedisConnection
from server.settings import Settings

logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0


class DataWatch:
    """Knowledge of one process about the data's id."""

    def __init__(self, connection: RedisConnection, settings: Settings) -> None:
        self._connection = connection
        self._kept = int(1000 * (settings.result_ttl + settings.tombstone_ttl))
        self._id: bytes | None = None
        self._lease_seconds = settings.lease_seconds
        self._lost_at = -math.inf  # monotonic

    async def is_fresh(self) -> bool:
        """Tells whether the data was lost less than a lease ago, so that workers may yet have to publish what they
        serve.

        Raises RedisUnavailable.
        """
        if time.monotonic() < self._lost_at + self._lease_seconds:
            return True
        return self._id is not None and await self._connection.again("GET", keys.DATA_ID) != self._id

    async def look(self, count_jobs: Callable[[], int]) -> bool:
        """Tells whether the data was lost since the last look; then it is logged with the number of jobs known here.

        Raises RedisUnavailable.
        """
        # It is written where there is none alone: a Redis that is full can still be looked at.
        found: bytes | None = await self._connection.again("GET", keys.DATA_ID)
        if found is None:
            await self._connection.again("SET", keys.DATA_ID, secrets.token_hex(8), "NX")
            found = await self._connection.again("GET", keys.DATA_ID)
        is_lost = self._id is not None and found != self._id
        if is_lost:
            self._lost_at = time.monotonic()
            logger.error("Redis has lost its data: %d jobs were known here", count_jobs())
            # Whoever asks for a job of before is told of it.
            await self._connection.again("SET", keys.DATA_LOST, int(time.time() * 1000), "PX", self._kept)
        self._id = found
        return is_lost

    async def run(self, count_jobs: Callable[[], int], on_lost: Callable[[], None]) -> None:
        """Looks now and then until it is cancelled; calls `on_lost` each time that the data was lost."""
        while True:
            try:
                if await self.look(count_jobs):
                    on_lost()
            except (RedisUnavailable, RedisError) as error:
                logger.debug("the data cannot be looked at: %s", error)
            await asyncio.sleep(LOOK_SECONDS)
