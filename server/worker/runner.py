"""The life of each job: it begins, is aborted where that is ordered, and gets exactly one ending."""

import asyncio
import logging
from collections.abc import Callable, Mapping

from oar_core.errors import RequestError
from oar_wire.errors import RedisUnavailable
from oar_wire.events import Canceled, Failed, Restarted
from oar_wire.job import Failure
from server.jobs.job import JobState
from server.jobs.log import LATE, Claim, Ending, JobLog, Order
from server.observability.metrics import WorkerMetrics
from server.observability.spans import NO_TRACING, Tracing
from server.tasks import BackgroundTasks
from server.worker.engine_thread import Abort, Add, Command
from server.worker.models import LoadedModel
from server.worker.outbox import RETRY_SECONDS, Outbox
from server.worker.running import RunningJob
from server.worker.table import JobTable

logger = logging.getLogger(__name__)


class Runner:
    """Works on any job log. To be used on the event loop's thread alone."""

    def __init__(
        self,
        log: JobLog,
        table: JobTable,
        models: Mapping[str, LoadedModel],
        metrics: WorkerMetrics,
        send: Callable[[Command], None],
        background: BackgroundTasks,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        """`send` gives the engine's thread a command."""
        self.outbox = Outbox(log, self.obey, self._on_ended)
        self.num_vanished = 0  # jobs that Redis knew nothing of any more
        self._log = log
        self._table = table
        self._models = models
        self._metrics = metrics
        self._send = send
        self._background = background
        self._tracing = tracing

    def begin(self, job: RunningJob) -> None:
        """Starts a job, or goes on with one that another worker began."""
        self._enter(job)
        claim = job.claim
        logger.info("job begun job=%s model=%s attempt=%d", claim.job_id, claim.model, claim.attempt)
        self._metrics.queue_time.labels(claim.model).observe(claim.age)
        if claim.is_restart:
            known = tuple(work.num_kept for work in job.works)
            # The script has said so itself where the job begins again with another model.
            if not claim.begins_again:
                self.outbox.put(job, "restarted", Restarted(attempt=claim.attempt, known=known).body())
            self._metrics.restarted.labels(claim.model).inc()
        try:
            requests = job.requests(self._models[claim.model].pipeline)
        except RequestError as error:
            self.fail(job, error)
            return
        for index, request in enumerate(requests):
            self._table.enter(job, index)
            self._send(Add(claim.model, request))

    def refuse(self, claim: Claim, error: RequestError) -> None:
        """Fails a job that cannot begin."""
        job = RunningJob.begin(claim)
        self._enter(job)
        self.fail(job, error)

    def _enter(self, job: RunningJob) -> None:
        previous = self._table.find(job.claim.job_id)
        self._table.add(job)
        if previous is not None:
            # It was lost, and is back before that was known: one job still, whose old pictures nobody else would end.
            self.abort(previous)
            self._table.remove(previous)

    def obey(self, job: RunningJob, order: Order) -> None:
        if order is Order.CANCEL:
            self.cancel(job)
        elif order is Order.EXPIRE:
            self._metrics.expired.labels(job.claim.model).inc(job.ending is None)
            self._end(job, Ending(JobState.FAILED, LATE.body()))
        elif order is Order.LOST:
            self._lose(job)

    def cancel(self, job: RunningJob) -> None:
        self._end(job, Ending(JobState.CANCELED, Canceled().body()))

    def fail(self, job: RunningJob, error: RequestError) -> None:
        body = Failed(error=Failure(code=error.code, message=str(error), field=error.field)).body()
        self._end(job, Ending(JobState.FAILED, body))

    def _end(self, job: RunningJob, ending: Ending) -> None:
        self.abort(job)
        self.outbox.end(job, ending)

    def abort(self, job: RunningJob) -> None:
        """Takes the job's pictures out of the engine."""
        for image in job.live:
            self._send(Abort(job.claim.model, job.sequence_id(image)))

    def _lose(self, job: RunningJob) -> None:
        """Another worker has the job now, or Redis has lost it: nothing more is drawn or written."""
        logger.warning("lost job=%s", job.claim.job_id)
        self._metrics.lost.labels(job.claim.model).inc()
        self.abort(job)
        if self._table.remove(job):
            self._tracing.end(job.claim.job_id, job.ending.state if job.ending else "lost")
        self._background.start(self._end_lost(job))

    async def _end_lost(self, job: RunningJob) -> None:
        """Tells clients of a job that Redis knows nothing of any more."""
        # Of what is pending, some may have been written and read though no answer came.
        seq = job.seq + len(job.pending) + 1
        while True:
            try:
                is_gone = await self._log.end_lost(job.claim, seq, job.age)
                break
            except RedisUnavailable as error:
                logger.warning("a lost job waits for redis job=%s: %s", job.claim.job_id, error)
                await asyncio.sleep(RETRY_SECONDS)
        if is_gone:
            self.num_vanished += 1
            logger.error("job ended, as Redis has lost it job=%s", job.claim.job_id)

    def _on_ended(self, job: RunningJob) -> None:
        """The job's ending is in the log."""
        assert job.ending is not None
        model, outcome = job.claim.model, job.ending.state
        logger.info("job ended job=%s outcome=%s seconds=%.3f", job.claim.job_id, outcome, job.age)
        self._metrics.jobs.labels(model, outcome.value).inc()
        if outcome is JobState.COMPLETED:
            self._metrics.images.labels(model).inc(len(job.works))
            self._metrics.e2e.labels(model).observe(job.age)
        if self._table.remove(job):
            self._tracing.end(job.claim.job_id, outcome)
