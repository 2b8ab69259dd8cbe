"""Settings of Redis by which it may lose jobs by itself. They can be changed while everything runs, so they are looked
at again and again.
"""

import asyncio
import logging
from collections.abc import Callable
from enum import StrEnum

from redis.exceptions import RedisError

from oar_wire.errors import RedisUnavailable
from server.jobs.connection import RedisConnection

logger = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
SECTIONS = ("memory", "persistence")  # of INFO; Redis 6 takes one at a time
SAFE_POLICY = "noeviction"


class Danger(StrEnum):
    """Dangers, which are the values of a metric's label too."""

    EVICTION = "eviction"
    NO_APPEND_ONLY_FILE = "no_append_only_file"


Dangers = dict[Danger, str]  # each with a sentence that says what to do


def find_dangers(info: str) -> Dangers:
    """Reads the sections of Redis' INFO."""
    facts = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    policy = facts.get("maxmemory_policy", SAFE_POLICY)
    found: Dangers = {}
    if policy != SAFE_POLICY:
        found[Danger.EVICTION] = f"Redis may evict jobs: its maxmemory-policy is {policy}, set {SAFE_POLICY}"
    if facts.get("aof_enabled") == "0":
        sentence = "Redis keeps no append-only file: jobs are lost when it ends, set appendonly yes"
        found[Danger.NO_APPEND_ONLY_FILE] = sentence
    return found


class SafetyWatch:
    """Watches these dangers for one process; each is logged when it comes and when it goes."""

    def __init__(self, connection: RedisConnection, on_look: Callable[[Dangers], None]) -> None:
        """`on_look` hears what each look found, and of nothing before the first one."""
        self._connection = connection
        self._on_look = on_look
        self.dangers: Dangers = {}
        on_look(self.dangers)

    async def look(self) -> None:
        """Raises RedisUnavailable, also where Redis' user may not ask."""
        replies: list[bytes] = await self._connection.again_many([("INFO", section) for section in SECTIONS])
        found = find_dangers("\n".join(reply.decode(errors="replace") for reply in replies))
        for danger, sentence in found.items():
            if self.dangers.get(danger) != sentence:
                logger.warning("%s", sentence)
        for danger in self.dangers.keys() - found.keys():
            logger.info("Redis is safe again: no %s", danger.replace("_", " "))
        self.dangers = found
        self._on_look(found)

    async def run(self) -> None:
        """Looks now and then until it is cancelled."""
        while True:
            try:
                await self.look()
            except (RedisUnavailable, RedisError) as error:
                logger.debug("the settings of Redis cannot be looked at: %s", error)
            await asyncio.sleep(LOOK_SECONDS)
