"""What goes to Redis about running jobs: gathered while a round trip is under way, then sent in one."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from oar_wire.errors import RedisUnavailable
from server.jobs import scripts
from server.jobs.connection import RedisConnection
from server.jobs.worker_queue import Kept, NewEvent, WorkerQueue
from server.worker.running import Ending, RunningJob

logger = logging.getLogger(__name__)

RETRY_SECONDS = 0.5


class Outbox:
    """Writes are numbered and fenced, so after a failure the same ones are simply sent again."""

    def __init__(
        self,
        connection: RedisConnection,
        queues: Mapping[str, WorkerQueue],
        *,
        on_lost: Callable[[RunningJob], None],
        on_cancel: Callable[[RunningJob], None],
        on_late: Callable[[RunningJob], None],
        on_ended: Callable[[RunningJob], None],
    ) -> None:
        self._connection = connection
        self._queues = queues
        self._on_lost, self._on_ended = on_lost, on_ended
        self._on_order = {1: on_cancel, 2: on_late}
        self._dirty: dict[tuple[str, int], RunningJob] = {}  # one that was lost and taken again is two
        self._has_work = asyncio.Event()
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    def put(
        self, job: RunningJob, kind: str, body: str, image: int = 0, *, steps: int = 0, kept: Sequence[Kept] = ()
    ) -> None:
        """Nothing is written after an ending. `image` tells whose preview it is; `kept` is stored before the event."""
        if job.ending is None:
            job.kept += kept
            job.add(NewEvent(kind, body, image, steps))
            self._mark(job)

    def end(self, job: RunningJob, ending: Ending) -> None:
        """The first ending counts."""
        if job.ending is None:
            job.ending = ending
            job.kept += ending.kept
            self._mark(job)

    async def wait_until_idle(self) -> None:
        await self._is_idle.wait()

    async def run(self) -> None:
        """The sending loop; runs until it is cancelled."""
        while True:
            await self._has_work.wait()
            jobs, self._dirty = list(self._dirty.values()), {}
            self._has_work.clear()
            await self._send(jobs)
            if not self._dirty:
                self._is_idle.set()

    def _mark(self, job: RunningJob) -> None:
        self._dirty[job.claim.job_id, job.claim.epoch] = job
        self._has_work.set()
        self._is_idle.clear()

    async def _send(self, jobs: list[RunningJob]) -> None:
        # Events that are added while Redis is asked go with the next round.
        counts = [len(job.pending) for job in jobs]
        num_kept = [len(job.kept) for job in jobs]
        for job, count in zip(jobs, counts):
            job.num_sending = count
        endings = [job.ending for job in jobs]
        calls: list[scripts.Call] = []
        for job, ending in zip(jobs, endings):
            queue = self._queues[job.claim.model]
            if job.kept:
                calls.append(queue.keep_call(job.claim, job.kept))
            calls.append(queue.emit_call(job.claim, job.seq, job.pending))
            if ending is not None:
                calls.append(queue.finish_call(job.claim, ending.state, ending.body, ending.images))
        replies = iter(await self._insist(calls))
        for job, count, kept, ending in zip(jobs, counts, num_kept, endings):
            if kept:
                next(replies)  # where it is lost, the next answer says so as well
                del job.kept[:kept]
            seq, order = next(replies)
            # A repeated emit finds the job ended; then the answer to the ending counts.
            is_lost = seq < 0 if ending is None else next(replies) < 0
            self._settle(job, count, is_lost=is_lost, ending=ending)
            if order and ending is None:
                self._on_order[order](job)

    def _settle(self, job: RunningJob, count: int, *, is_lost: bool, ending: Ending | None) -> None:
        del job.pending[:count]
        job.num_sending = 0
        job.seq += count  # also where it is lost: some of these may have been written by a call whose answer was lost
        if is_lost:
            self._on_lost(job)
        elif ending is not None:
            self._on_ended(job)

    async def _insist(self, calls: list[scripts.Call]) -> list[Any]:
        while True:
            try:
                return await scripts.run_many(self._connection, calls)
            except RedisUnavailable as error:
                logger.warning("outbox waits for redis: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
