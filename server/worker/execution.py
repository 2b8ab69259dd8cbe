"""Execution of jobs in this process: engine, runner, outputs, previews and outbox, over one job log."""

import asyncio
from collections.abc import Mapping, Sequence

from oar_core.errors import RequestError
from server.jobs.log import Claim, JobLog, Order
from server.observability.metrics import WorkerMetrics
from server.observability.spans import NO_TRACING, Tracing
from server.results.store import WITH_THE_ENDING, ResultWriter
from server.settings import Settings
from server.tasks import BackgroundTasks, stop_tasks
from server.worker.engine_thread import Crashed, EngineThread, Report, Stop
from server.worker.models import LoadedModel, thread_guard
from server.worker.opening import JobOpener
from server.worker.outputs import OutputWriter
from server.worker.previews import Expectations, Previews
from server.worker.render import Renderer
from server.worker.reports import ReportReader
from server.worker.runner import Runner
from server.worker.speed import MeasuredSpeed
from server.worker.table import JobTable

JOIN_SECONDS = 10.0  # for the engine to end its step; the thread is a daemon


class Execution:
    """Has to be made inside a running event loop."""

    def __init__(
        self,
        settings: Settings,
        log: JobLog,
        models: Mapping[str, LoadedModel],
        metrics: WorkerMetrics,
        tracing: Tracing = NO_TRACING,
        results: ResultWriter = WITH_THE_ENDING,
    ) -> None:
        self._log = log
        self._tracing = tracing
        self._loop = asyncio.get_running_loop()
        engines = {name: model.engine for name, model in models.items()}
        self._engine = EngineThread(engines, self._report, thread_guard(settings))
        self._crash: asyncio.Future[None] = self._loop.create_future()
        self._tasks: list[asyncio.Task[None]] = []
        background = BackgroundTasks(self._on_crash)
        send = self._engine.send
        self.table = JobTable(models, metrics)
        self.speed = MeasuredSpeed()
        self.runner = Runner(log, self.table, models, metrics, send, background, tracing)
        outbox, expectations = self.runner.outbox, Expectations(models, send)
        self._renderer = Renderer(is_deterministic=any(model.mode == "deterministic" for model in models.values()))
        self._opener = JobOpener(log, models, self._renderer)
        outputs = OutputWriter(
            *(outbox, self._renderer, expectations, models, metrics, self.speed, background, self.table, results),
            tracing,
        )
        self._reports = ReportReader(self.runner, outputs, self.table, models, metrics, self.speed)
        self._previews = Previews(self.table, outbox, self._renderer, expectations, models, metrics, settings)

    def start(self) -> Sequence[asyncio.Future[None]]:
        """Starts the work that goes on as long as jobs run: whichever ends first has failed."""
        self._engine.start()
        self._tasks = [asyncio.create_task(work) for work in (self.runner.outbox.run(), self._previews.run())]
        return self._crash, *self._tasks

    async def begin(self, claim: Claim) -> None:
        """Runs a job, or fails it where it cannot begin. Raises RedisUnavailable."""
        refusal = None
        try:
            job = await self._opener.open(claim)
        except RequestError as error:
            job, refusal = None, error
        if self._tracing.is_on:
            trace = await self._log.traceparent(claim)
            self._tracing.begin(claim.job_id, claim.model, trace, claim.age, claim.attempt)
        if job is not None:
            self.runner.begin(job)
        elif refusal is not None:
            self.runner.refuse(claim, refusal)

    async def renew(self) -> None:
        """Keeps the leases of the jobs that run, and does what the log orders. Raises RedisUnavailable."""
        jobs = [job for job in self.table.jobs if job.ending is None]
        for job, order in zip(jobs, await self._log.renew([job.claim for job in jobs])):
            if order is not Order.LOST or job.ending is None:
                self.runner.obey(job, order)

    async def stop(self) -> None:
        await stop_tasks(self._tasks)
        self._engine.send(Stop())
        await asyncio.to_thread(self._engine.join, JOIN_SECONDS)
        self._renderer.close()

    def _report(self, report: Report) -> None:
        """Called on the engine's thread."""
        self._loop.call_soon_threadsafe(self._on_report, report)

    def _on_report(self, report: Report) -> None:
        try:
            if isinstance(report, Crashed):
                self._on_crash(report.error)
            else:
                self._reports.read(report)
        except Exception as error:  # noqa: BLE001 - the rest of the report is lost, and asyncio would only log it
            self._on_crash(error)

    def _on_crash(self, error: BaseException) -> None:
        if not self._crash.done():
            self._crash.set_exception(error)
