"""The leases of a worker's jobs: taken, ended by a cancel, handed back. `Execution.renew` keeps them."""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence

from redis.exceptions import RedisError, ResponseError

from oar_wire.errors import RedisUnavailable
from server.jobs.connection import UNREACHABLE, is_refusal
from server.jobs.control import ControlStream
from server.jobs.redis_log import RedisJobLog
from server.jobs.worker_queue import Taken, WorkerQueue
from server.observability.metrics import WorkerMetrics
from server.worker.execution import Execution

logger = logging.getLogger(__name__)

BLOCK_SECONDS = 0.5
PAUSE_SECONDS = 0.5
DRAIN_PAUSE_SECONDS = 0.02


class JobTaker:
    """Takes the jobs of one model while there are free rows."""

    def __init__(self, queue: WorkerQueue, execution: Execution, metrics: WorkerMetrics) -> None:
        self._queue = queue
        self._execution = execution
        self._metrics = metrics
        self._backlog: deque[Taken] = deque()
        self._is_stopping = False

    def stop(self) -> None:
        """Takes no more jobs; `run` returns when the one that it takes now has begun."""
        self._is_stopping = True
        self._execution.table.wake()

    async def run(self) -> None:
        """Runs until `stop`."""
        is_open = True
        is_complete = False  # a job may have been given to us by an answer that was lost
        while not self._is_stopping:
            try:
                if not is_open:
                    await self._queue.open()
                    is_open = True
                if not is_complete:
                    self._backlog += await self._missing()
                    is_complete = True
                while not self._execution.table.has_free_rows(self._queue.model) and not self._is_stopping:
                    await self._execution.table.wait_for_change()
                await self._take_one()
            except (RedisUnavailable, *UNREACHABLE, ResponseError) as error:
                if isinstance(error, ResponseError):
                    is_open = "NOGROUP" not in str(error)
                    if is_open and not is_refusal(error):
                        raise
                logger.warning("cannot take jobs: %s", error)
                await asyncio.sleep(PAUSE_SECONDS)
                is_complete = False

    async def _missing(self) -> list[Taken]:
        """Jobs that are ours by Redis' account and that we know nothing of."""
        known = {taken.entry for taken in self._backlog}
        table, unfinished = self._execution.table, await self._queue.unfinished()
        return [taken for taken in unfinished if taken.entry not in known and table.find(taken.job_id) is None]

    async def _take_one(self) -> None:
        """Takes first what this worker held when it died, then what others left, then new jobs."""
        if self._is_stopping:
            return
        if not self._backlog:
            taken = await self._queue.take(BLOCK_SECONDS)
            if taken is None:
                return
            self._backlog.append(taken)
        # It leaves the backlog when it has begun: if Redis goes away meanwhile, the same claim is made again.
        claim = await self._queue.claim(self._backlog[0])
        self._metrics.count_conclusions(self._queue.model, self._queue.concluded)
        if claim is not None:
            await self._execution.begin(claim)
        self._backlog.popleft()


class Leases:
    """Leases of the running jobs."""

    def __init__(self, log: RedisJobLog, execution: Execution, control: ControlStream) -> None:
        self._log = log
        self._table = execution.table
        self._runner = execution.runner
        self._control = control

    async def follow_cancels(self) -> None:
        """Runs until it is cancelled."""
        while True:
            try:
                for job_id in await self._control.read(BLOCK_SECONDS):
                    if (job := self._table.find(job_id)) is not None:
                        self._runner.cancel(job)
            except (*UNREACHABLE, RedisError) as error:
                logger.warning("cannot hear of cancels: %s", error)
                await asyncio.sleep(PAUSE_SECONDS)

    async def drain(self, seconds: float, needed: Sequence[asyncio.Future[None]]) -> None:
        """Lets jobs finish within the bound; returns at once where one of those who are needed for that has failed."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while self._table.jobs and loop.time() < deadline and not any(future.done() for future in needed):
            await asyncio.sleep(DRAIN_PAUSE_SECONDS)

    async def hand_back(self) -> None:
        """Gives all jobs to other workers, once what is known of them is written. Raises RedisUnavailable."""
        await self._runner.outbox.wait_until_idle()
        jobs = self._table.jobs
        for job in jobs:
            self._runner.abort(job)
        for job, was_ours in zip(jobs, await self._log.release([job.claim for job in jobs])):
            if was_ours:
                logger.info("job handed back job=%s", job.claim.job_id)
