"""What tenants have used: counted by the script that ends a job, by days of UTC."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from server.jobs import keys
from server.jobs.connection import RedisConnection

DAY_SECONDS = 86400
EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class DayUsage:
    """Jobs that ended on a day. `steps` are decode steps of all their pictures, `seconds` from start to end."""

    day: date
    completed: int
    failed: int
    canceled: int
    pictures: int
    steps: int
    seconds: float


class UsageReader:
    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    async def read(self, tenant: str, days: int) -> list[DayUsage]:
        """The last days with today, the newest first, in one round trip. Raises RedisUnavailable."""
        today = int(time.time() // DAY_SECONDS)
        numbers = [today - back for back in range(days)]
        replies = await self._connection.again_many(
            [("HGETALL", keys.usage_key(tenant, str(number))) for number in numbers]
        )
        return [_parse(number, reply) for number, reply in zip(numbers, replies)]

    async def read_today(self, tenants: Sequence[str]) -> list[DayUsage]:
        """Today's of several tenants, in one round trip. Raises RedisUnavailable."""
        today = int(time.time() // DAY_SECONDS)
        words = [("HGETALL", keys.usage_key(tenant, str(today))) for tenant in tenants]
        replies = await self._connection.again_many(words) if words else []
        return [_parse(today, reply) for reply in replies]


def _parse(number: int, reply: Sequence[Any]) -> DayUsage:
    counts = {name.decode(): int(value) for name, value in zip(reply[::2], reply[1::2])}
    return DayUsage(
        EPOCH + timedelta(days=number),
        *(counts.get(name, 0) for name in ("completed", "failed", "canceled", "pictures", "steps")),
        seconds=counts.get("milliseconds", 0) / 1000,
    )
