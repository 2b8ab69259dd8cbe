"""Dead letters: jobs that were begun too often, listed for whoever looks after the server."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from oar_wire.job import GenerationParams
from oar_wire.tenant import OPEN_TENANT
from server.jobs import keys
from server.jobs.connection import RedisConnection


@dataclass(frozen=True)
class DeadLetter:
    """Outlives its job: the parameters are here, so that it can be repeated when the job has expired.

    An edit also needs its source picture, which expires with the job.
    """

    entry: str
    job_id: str
    model: str
    reason: str  # the stable code that the job failed with
    attempts: int
    at: float  # Unix seconds by Redis' clock
    params: GenerationParams
    tenant: str


class DeadLetters:
    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    async def list(self, count: int = 100) -> list[DeadLetter]:
        """The newest first."""
        reply: list[Any] = await self._connection.again("XREVRANGE", keys.DEAD, "+", "-", "COUNT", count)
        return [_parse(entry, words) for entry, words in reply]

    async def count(self) -> int:
        return await self._connection.again("XLEN", keys.DEAD)

    async def find(self, job_id: str) -> DeadLetter | None:
        reply: list[Any] = await self._connection.again("XREVRANGE", keys.DEAD, "+", "-")
        return next((_parse(entry, words) for entry, words in reply if words[1].decode() == job_id), None)

    async def remove(self, letter: DeadLetter) -> None:
        await self._connection.again("XDEL", keys.DEAD, letter.entry)


def _parse(entry: bytes, words: Sequence[bytes]) -> DeadLetter:
    fields = {key.decode(): value.decode() for key, value in zip(words[::2], words[1::2])}
    return DeadLetter(
        entry=entry.decode(),
        job_id=fields["job"],
        model=fields["model"],
        reason=fields["reason"],
        attempts=int(fields["attempts"]),
        at=int(fields["at"]) / 1000,
        params=GenerationParams.model_validate_json(fields["params"]),
        tenant=fields.get("tenant") or OPEN_TENANT,
    )
