"""Moves completed jobs from Redis to the store of results.

Every API process runs one. An ending puts its job on a list in the same script that writes it, so a job is moved
however many processes die; it stays in Redis until it is.
"""

import asyncio
import logging
from collections.abc import Callable

from redis.exceptions import RedisError

from oar_wire.errors import RedisUnavailable, ResultsUnavailable
from oar_wire.outputs import OutputData, OutputKind
from oar_wire.tenant import OPEN_TENANT
from server.jobs import keys, scripts
from server.jobs.connection import RedisConnection
from server.jobs.due_list import DueList
from server.jobs.durations import milliseconds
from server.jobs.events import EventLog
from server.jobs.job import JobState
from server.jobs.keys import Field
from server.results.store import Archive, ResultStore
from server.settings import Settings

logger = logging.getLogger(__name__)

BATCH = 16  # jobs that are moved at a time
HOLD_SECONDS = 60.0  # after which another process may try
ENDED_SECONDS = 300.0  # that Redis keeps a moved job, for those who follow it
# Facts of the work alone: nobody asks for them later, or nobody may.
NOT_ARCHIVED = frozenset({Field.CHARGE, Field.STORAGE, Field.SOURCE, Field.NONCE, Field.CALLBACK})


class Archiver:
    def __init__(
        self,
        connection: RedisConnection,
        settings: Settings,
        store: ResultStore,
        on_archived: Callable[[], None] = lambda: None,
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._store = store
        self._on_archived = on_archived
        self._events = EventLog(connection)
        self.waiting = DueList(connection, keys.ARCHIVE)

    async def run(self) -> None:
        """Moves jobs until it is cancelled."""
        while True:
            try:
                while await self.archive() == BATCH:
                    pass
            except (RedisUnavailable, RedisError, ResultsUnavailable) as error:
                logger.warning("cannot archive: %s", error)
            await asyncio.sleep(self._settings.sweep_seconds)

    async def archive(self) -> int:
        """Moves `BATCH` jobs at most; returns how many were moved. Raises RedisUnavailable, ResultsUnavailable."""
        ids = await self.waiting.take(BATCH, HOLD_SECONDS)
        outcomes = await asyncio.gather(*map(self._move, ids), return_exceptions=True)
        failures = [(job_id, outcome) for job_id, outcome in zip(ids, outcomes) if isinstance(outcome, BaseException)]
        for job_id, failure in failures:
            if isinstance(failure, RedisUnavailable | RedisError | ResultsUnavailable):
                raise failure
            # One job must not keep the others in Redis. It is tried again.
            logger.error("cannot archive job=%s", job_id, exc_info=failure)
        return len(ids) - len(failures)

    async def _move(self, job_id: str) -> None:
        words: list[bytes] = await self._connection.again("HGETALL", keys.job_key(job_id))
        fields = {name.decode(): value.decode() for name, value in zip(words[::2], words[1::2])}
        if fields.get(Field.STATE) != JobState.COMPLETED:
            await self.waiting.remove(job_id)
            return
        tenant = fields.get(Field.TENANT) or OPEN_TENANT
        kept = {name: value for name, value in fields.items() if name not in NOT_ARCHIVED}
        outputs = await self._outputs(job_id)
        await self._store.archive(Archive(tenant, job_id, kept, await self._events.read_all(job_id), outputs))
        names = keys.job_keys(job_id, fields[Field.MODEL], fields[Field.PRIORITY])
        ended = milliseconds(min(ENDED_SECONDS, self._settings.result_ttl))
        args = {"id": job_id, "ended_ms": ended}
        if await scripts.run(self._connection, "archived", [*names, keys.outputs_key(job_id)], args):
            self._on_archived()
        else:
            await self._store.delete(tenant, job_id)  # somebody has deleted it meanwhile

    async def _outputs(self, job_id: str) -> list[OutputData]:
        """Those that were stored while the job ran."""
        words: list[bytes] = await self._connection.again("HGETALL", keys.outputs_key(job_id))
        stored = {name.decode(): value for name, value in zip(words[::2], words[1::2])}
        found: list[OutputData] = []
        for name, data in stored.items():
            media_type = stored.get(f"{name}:type")
            if media_type is not None:
                kind, index = name.split(":")
                found.append(OutputData(_kind(kind), int(index), media_type.decode(), data))
        return found


def _kind(name: str) -> OutputKind:
    return "frame" if name == "frame" else "video"
