"""Deletes results that are too old, or for which there is no room: the least recently used go first."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from oar_wire.errors import RedisUnavailable
from server.jobs import keys
from server.jobs.connection import RedisConnection
from server.jobs.job_calls import ARCHIVE_WAIT_MS
from server.results.files import Files, StoreFault
from server.results.stored_results import RECORD
from server.settings import Settings

logger = logging.getLogger(__name__)

ROOM = 0.95  # share of the bound that is left after a deletion, so that there is not one for each new job
# After which files without a record are nobody's: their job has ended otherwise, or its worker has died.
ORPHAN_SECONDS = ARCHIVE_WAIT_MS / 1000 + 86400
LEAST_SECONDS, LEAST_S3_SECONDS = 30.0, 900.0  # between two looks: S3 bills each
SHARE = 50  # a look takes at most one part in so many of the time


@dataclass
class _StoredJob:
    num_bytes: int = 0
    used_at: float = 0.0
    has_record: bool = False


@dataclass(frozen=True)
class Swept:
    num_bytes: int  # that are left
    num_deleted: int  # jobs
    freed: int  # bytes


class Retention:
    def __init__(
        self, files: Files, max_bytes: int, max_seconds: float, clock: Callable[[], float] = time.time
    ) -> None:
        """0 is no limit. `clock` counts Unix seconds."""
        self._files = files
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._clock = clock

    def sweep(self) -> Swept:
        """Looks at all files, by blocking calls. Raises StoreFault."""
        jobs = self._jobs()
        total = sum(job.num_bytes for job in jobs.values())
        before, deleted = total, 0
        bound = ROOM * self._max_bytes if self._max_bytes and total > self._max_bytes else float("inf")
        for name, job in sorted(jobs.items(), key=lambda item: item[1].used_at):
            age = self._clock() - job.used_at
            is_old = age > (self._max_seconds or float("inf")) if job.has_record else age > ORPHAN_SECONDS
            if is_old or (total > bound and job.has_record):
                self._files.delete(name)
                total -= job.num_bytes
                deleted += 1
        return Swept(total, deleted, before - total)

    def _jobs(self) -> dict[str, _StoredJob]:
        jobs: dict[str, _StoredJob] = {}
        for file in self._files.list():
            job = jobs.setdefault(file.job, _StoredJob())
            job.num_bytes += file.size
            job.used_at = max(job.used_at, file.used_at)
            job.has_record |= file.name.endswith(f"/{RECORD}")
        return jobs


class RetentionLoop:
    """Every API process has one; a key in Redis lets one of them look at a time."""

    def __init__(
        self,
        connection: RedisConnection,
        settings: Settings,
        files: Files,
        on_swept: Callable[[Swept], None],
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._retention = Retention(files, settings.results_mib << 20, settings.results_ttl)
        self._where = files.where
        self._on_swept = on_swept
        is_folder = settings.results == "folder"
        self._least_seconds = LEAST_SECONDS if is_folder else LEAST_S3_SECONDS
        self._has_limit = bool(is_folder or settings.results_mib or settings.results_ttl)

    async def run(self) -> None:
        """Looks until it is cancelled. A bucket without limits is not listed."""
        seconds = 0.0
        while self._has_limit:
            try:
                if await self._is_mine():
                    start = time.monotonic()
                    self._note(await asyncio.to_thread(self._retention.sweep))
                    seconds = time.monotonic() - start
            except (RedisUnavailable, StoreFault) as error:
                logger.warning("cannot look after the results: %s", error)
            await asyncio.sleep(max(self._least_seconds, SHARE * seconds))

    async def _is_mine(self) -> bool:
        words = ("SET", keys.RETENTION, "1", "NX", "PX", int(self._least_seconds * 900))
        return await self._connection.again(*words) is not None

    def _note(self, swept: Swept) -> None:
        self._on_swept(swept)
        if swept.num_deleted:
            logger.info(
                "deleted the results of %d jobs, %.1f MiB, too old or the least recently used; %s has %.1f of %d MiB",
                swept.num_deleted,
                swept.freed / 2**20,
                self._where,
                swept.num_bytes / 2**20,
                self._settings.results_mib,
            )
