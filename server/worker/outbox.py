"""Writes to the log about running jobs: gathered while a write is under way, then sent as one."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from oar_wire.errors import RedisUnavailable
from server.jobs.log import Ending, JobLog, Kept, NewEvent, Order, Write
from server.worker.running import RunningJob

logger = logging.getLogger(__name__)

RETRY_SECONDS = 0.5


class Outbox:
    """Writes are numbered and fenced, so after a failure the same ones are simply sent again."""

    def __init__(
        self, log: JobLog, on_order: Callable[[RunningJob, Order], None], on_ended: Callable[[RunningJob], None]
    ) -> None:
        """`on_order` is called with each answer that is not GO_ON, `on_ended` when an ending is in the log."""
        self._log = log
        self._on_order, self._on_ended = on_order, on_ended
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

    async def _send(self, jobs: Sequence[RunningJob]) -> None:
        # Events that are added while the log is asked go with the next round.
        writes = [Write(job.claim, job.seq, tuple(job.kept), tuple(job.pending), job.ending) for job in jobs]
        for job, write in zip(jobs, writes):
            job.num_sending = len(write.events)
        for job, write, order in zip(jobs, writes, await self._insist(writes)):
            self._settle(job, write, order)

    def _settle(self, job: RunningJob, write: Write, order: Order) -> None:
        del job.kept[: len(write.kept)]
        del job.pending[: len(write.events)]
        job.num_sending = 0
        job.seq += len(write.events)  # also where it is lost: a call whose answer was lost may have written some
        if write.ending is not None and order is not Order.LOST:
            self._on_ended(job)
        elif order is not Order.GO_ON:
            self._on_order(job, order)

    async def _insist(self, writes: Sequence[Write]) -> list[Order]:
        while True:
            try:
                return await self._log.write(writes)
            except RedisUnavailable as error:
                logger.warning("outbox waits for redis: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
