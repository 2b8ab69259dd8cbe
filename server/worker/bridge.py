"""Between Redis and the engine: takes jobs for free rows, renews leases, hears of cancels, sends previews, stops."""

import asyncio
import contextlib
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from redis.exceptions import RedisError, ResponseError

from oar_core.errors import RequestError
from oar_core.models.model import Model
from oar_core.sampling.frames import Frame
from oar_wire.errors import RedisUnavailable
from oar_wire.model import WorkerInfo
from server.jobs import keys, scripts
from server.jobs.connection import UNREACHABLE, RedisConnection, is_refusal
from server.jobs.control import ControlStream
from server.jobs.events import EventLog
from server.jobs.instance import DataWatch
from server.jobs.store import OutputStore, Registry
from server.jobs.worker_queue import Claim, Taken, WorkerQueue
from server.observability.exposition import expose, own
from server.observability.metrics import WorkerMetrics
from server.observability.tracing import NO_TRACING, Tracing
from server.settings import Settings
from server.tasks import stop_tasks
from server.worker.desk import Desk
from server.worker.edits import JobEdit, SourceMissing
from server.worker.engine_thread import EngineThread, Report, Stop
from server.worker.models import LoadedModel
from server.worker.preview_budget import PreviewBudget
from server.worker.running import Canvas, Prompts, RunningJob, read_prompts, read_values

logger = logging.getLogger(__name__)

BLOCK_SECONDS = 0.5
PAUSE_SECONDS = 0.5
FLUSH_SECONDS = 2.0
MOST_BEATS = 1 << 32  # that a count of heartbeats begins with
JOIN_SECONDS = 10.0  # for the engine to end its step; the thread is a daemon


class WorkerCrashed(RuntimeError):
    """The model failed. The process has to end; its jobs are begun again by the next one."""


class Bridge:
    """To be made inside a running event loop."""

    def __init__(
        self,
        settings: Settings,
        connection: RedisConnection,
        worker: str,
        models: Sequence[LoadedModel],
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self.metrics = WorkerMetrics([model.name for model in models])
        self._tracing = tracing
        self._settings = settings
        self._connection = connection
        self._worker = worker
        self._models = {model.name: model for model in models}
        self._queues = {
            name: WorkerQueue(connection, settings, worker, name, model.pipeline.model_hash)
            for name, model in self._models.items()
        }
        self._log = EventLog(connection)
        self._registry = Registry(connection)
        self._outputs = OutputStore(connection)
        self._control = ControlStream(connection, worker)
        self._data = DataWatch(connection, settings)
        # Not that of the process before, which had the same name: a count that stands still is a dead worker.
        self._num_beats = secrets.randbelow(MOST_BEATS)
        self._stopping = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._crash: asyncio.Future[None] = self._loop.create_future()
        self._engine = EngineThread({name: model.engine for name, model in self._models.items()}, self._report)
        self._desk = Desk(
            connection,
            self._queues,
            self._models,
            self.metrics,
            self._engine.send,
            on_crash=self._on_crash,
            tracing=tracing,
        )

    def stop(self) -> None:
        """Takes no more jobs; `run` returns when those that run have ended or were handed back."""
        self._stopping.set()
        self._desk.wake()

    async def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Serves until `stop`; calls `on_ready` when it takes jobs. Raises WorkerCrashed.

        It stops in three steps: no more jobs are taken, and whoever asks is told so first; those that run may finish;
        after `drain_seconds` the rest is handed back. It returns at once if it is stopped before Redis was reached.
        """
        if not await self._announce():
            return
        self._engine.start()
        work = (self._desk.outbox.run(), self._beats(), self._cancels(), self._previews())
        background = [asyncio.create_task(coroutine) for coroutine in work]
        takers = [asyncio.create_task(self._takes(queue)) for queue in self._queues.values()]
        on_ready()
        try:
            await _wait_for_stop(self._stopping, self._crash, [*background, *takers])
            await self._tell_of_stop()
            await asyncio.gather(*takers)
            await self._drain([self._crash, *background])
        finally:
            await stop_tasks([*background, *takers])
            self._engine.send(Stop())
            await asyncio.to_thread(self._engine.join, JOIN_SECONDS)
            self._desk.renderer.close()

    def _report(self, report: Report) -> None:
        """On the engine's thread."""
        self._loop.call_soon_threadsafe(self._on_report, report)

    def _on_report(self, report: Report) -> None:
        try:
            self._desk.on_report(report)
        except Exception as error:  # noqa: BLE001 - the rest of the report is lost, and asyncio would only log it
            self._on_crash(error)

    def _on_crash(self, error: BaseException) -> None:
        if not self._crash.done():
            self._crash.set_exception(error)

    # taking

    async def _takes(self, queue: WorkerQueue) -> None:
        backlog: deque[Taken] = deque()
        is_open = True
        is_complete = False  # a job may have been given to us by an answer that was lost
        while not self._stopping.is_set():
            try:
                if not is_open:
                    await queue.open()
                    is_open = True
                if not is_complete:
                    backlog += await self._missing(queue, backlog)
                    is_complete = True
                while not self._desk.has_room(queue.model) and not self._stopping.is_set():
                    await self._desk.wait_for_change()
                await self._take_one(queue, backlog)
            except (RedisUnavailable, *UNREACHABLE, ResponseError) as error:
                if isinstance(error, ResponseError):
                    is_open = "NOGROUP" not in str(error)
                    if is_open and not is_refusal(error):
                        raise
                logger.warning("cannot take jobs: %s", error)
                await asyncio.sleep(PAUSE_SECONDS)
                is_complete = False

    async def _missing(self, queue: WorkerQueue, backlog: Collection[Taken]) -> list[Taken]:
        """Jobs that are ours by Redis' account and that we know nothing of."""
        known = {taken.entry for taken in backlog}
        unfinished = await queue.unfinished()
        return [taken for taken in unfinished if taken.entry not in known and self._desk.find(taken.job_id) is None]

    async def _take_one(self, queue: WorkerQueue, backlog: deque[Taken]) -> None:
        """What this worker held when it died goes first, then what others left, then new jobs."""
        if self._stopping.is_set():
            return
        if not backlog:
            taken = await queue.take(BLOCK_SECONDS)
            if taken is None:
                return
            backlog.append(taken)
        # It leaves the backlog when it has begun: if Redis goes away meanwhile, the same claim is made again.
        claim = await queue.claim(backlog[0])
        self.metrics.count_conclusions(queue.model, queue.concluded)
        if claim is not None:
            await self._begin(queue, claim)
        backlog.popleft()

    async def _begin(self, queue: WorkerQueue, claim: Claim) -> None:
        log = await self._log.read_checkpoint(claim.job_id, claim.base) if claim.is_restart else ()
        values = None
        try:
            self._check_kind(claim)
            values = await self._frame_values(claim) if claim.is_restart and claim.params.frames else None
            edit, prompts, refusal = await self._open_edit(claim), await self._read_prompts(claim), None
        except RequestError as error:
            edit, prompts, refusal = None, None, error
        await self._trace(queue, claim)
        if refusal is not None:
            self._desk.refuse(claim, refusal)
        else:
            self._desk.begin(claim, log, edit, values, prompts)

    def _check_kind(self, claim: Claim) -> None:
        """A model of the same name may have come in place of the one that the job was accepted for. Raises
        RequestError."""
        if claim.params.frames != self._models[claim.model].pipeline.num_frames:
            raise RequestError("the model makes something else now than when the job was submitted", field="model")

    async def _frame_values(self, claim: Claim) -> dict[tuple[int, int], Frame]:
        """Of the finished frames of a job's videos, by video and number."""
        shape = self._models[claim.model].filming.backbone.spec.layout.frame_shape
        stored = await self._outputs.read_values(claim.job_id)
        return {keys.parse_values_field(name): read_values(data, shape) for name, data in stored.items()}

    async def _read_prompts(self, claim: Claim) -> Prompts | None:
        """None where it takes no time: the encoder of captions is a network of its own. Raises RequestError."""
        pipeline = self._models[claim.model].pipeline
        if not pipeline.backbone.spec.feature_width:
            return None
        return await asyncio.to_thread(read_prompts, claim.params, pipeline)

    async def _trace(self, queue: WorkerQueue, claim: Claim) -> None:
        if self._tracing.is_on:
            trace = await queue.traceparent(claim.job_id)
            self._tracing.begin(claim.job_id, claim.model, trace, claim.age, claim.attempt)

    async def _open_edit(self, claim: Claim) -> JobEdit | None:
        """Raises RequestError when the job's source picture cannot be edited."""
        params = claim.params.edit
        if params is None:
            return None
        png = await self._outputs.read_source(claim.job_id)
        if png is None:
            raise SourceMissing("the picture that was to be edited is no longer kept", field="image")
        pipeline = self._models[claim.model].drawing
        return await self._desk.renderer.open_edit(pipeline, params, png, claim.params.seed)

    # beside the engine

    async def _announce(self) -> bool:
        """Tells Redis of this worker and its models, however long Redis is away; False if it was stopped before."""
        is_logged = False
        while not self._stopping.is_set():
            try:
                await self._publish_all()
            except RedisUnavailable as error:
                if not is_logged:
                    logger.warning("waits to announce itself: %s", error)
                is_logged = True
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), PAUSE_SECONDS)
            else:
                return True
        return False

    async def _publish_all(self) -> None:
        """Changes nothing the second time. Raises RedisUnavailable."""
        await self._data.look(self._count_jobs)
        await self._control.remove()
        for queue in self._queues.values():
            await queue.open()
        await self._publish_models()
        await self._beat()

    @property
    def _model_seconds(self) -> float:
        """That a model is known after this worker's latest heartbeat."""
        return self._settings.lease_seconds + self._settings.model_grace

    def _count_jobs(self) -> int:
        return len(self._desk.jobs) + self._desk.num_vanished

    async def _restore(self) -> None:
        """What Redis has lost and a worker can tell it again; jobs that run here end with their next renewal."""
        self._control.rewind()
        for queue in self._queues.values():
            await queue.open()

    async def _beats(self) -> None:
        while True:
            await asyncio.sleep(self._settings.heartbeat_seconds)
            try:
                if await self._data.look(self._count_jobs):
                    await self._restore()
                self._desk.num_vanished = 0
                await self._renew()
                for queue in self._queues.values():
                    await queue.observe()
                await self._keep_models()
                await self._beat()
            except RedisUnavailable as error:
                logger.warning("no heartbeat: %s", error)

    async def _keep_models(self) -> None:
        """Publishes the models again where Redis has lost or evicted them."""
        names = tuple(self._models)
        if not await self._registry.keep_models(names, self._model_seconds):
            logger.warning("published again, as Redis knew nothing of them: models=%s", ",".join(names))
            await self._publish_models(becomes_default=False)

    async def _publish_models(self, *, becomes_default: bool = True) -> None:
        pipelines = {name: model.pipeline for name, model in self._models.items()}
        await self._registry.publish_models(
            [model.info() for model in self._models.values()],
            {name: pipeline.conditioner.to_json() for name, pipeline in pipelines.items()},
            self._model_seconds,
            vocabularies={
                name: words.to_json() for name, pipeline in pipelines.items() if (words := pipeline.vocabulary)
            },
            becomes_default=becomes_default,
        )

    async def _renew(self) -> None:
        jobs = [job for job in self._desk.jobs if job.ending is None]
        calls = [self._queues[job.claim.model].renew_call(job.claim) for job in jobs]
        answers = await scripts.run_many(self._connection, calls) if calls else []
        for job, answer in zip(jobs, answers):
            if answer < 0 and job.ending is None:
                self._desk.lose(job)
            elif answer == 1:
                self._desk.cancel(job)
            elif answer == 2:
                self._desk.expire(job)

    async def _beat(self) -> None:
        self._num_beats += 1
        slots = sum(model.slots for model in self._models.values())
        info = WorkerInfo(
            name=self._worker,
            models=tuple(self._models),
            slots=slots,
            step_seconds=round(self._desk.step_seconds, 6),
            base_seconds=round(self._desk.step_times.base_seconds, 6),
            row_seconds=round(self._desk.step_times.row_seconds, 6),
            picture_seconds=round(self._desk.picture_seconds, 6),
            is_draining=self._stopping.is_set(),
            beats=self._num_beats,
            lease_seconds=self._settings.lease_seconds,
        )
        await self._registry.publish_metrics(
            self._worker, expose(own(self.metrics.registry)), self._settings.lease_seconds
        )
        await self._registry.beat(info, self._settings.lease_seconds)

    async def _cancels(self) -> None:
        while True:
            try:
                for job_id in await self._control.read(BLOCK_SECONDS):
                    if (job := self._desk.find(job_id)) is not None:
                        self._desk.cancel(job)
            except (*UNREACHABLE, RedisError) as error:
                logger.warning("cannot hear of cancels: %s", error)
                await asyncio.sleep(PAUSE_SECONDS)

    async def _previews(self) -> None:
        budget = PreviewBudget(self._settings.preview_interval / 2, self._settings.preview_batch)
        while True:
            for model in self._models.values():
                if isinstance(model.pipeline, Model):
                    most = budget.most(model.name)
                    budget.spend(model.name, *await self._preview(model.name, model.pipeline, most))
            await asyncio.sleep(budget.end_round())

    async def _preview(self, name: str, pipeline: Model, most: int) -> tuple[float, int]:
        """Draws up to `most` pictures; returns how long it worked, and how many it drew."""
        due = [
            (job, image, canvas)
            for job in self._desk.jobs
            if job.claim.model == name and job.claim.params.previews and job.ending is None
            for image, canvas in enumerate(job.canvases)
            if self._is_due(canvas)
        ]
        if not due:
            return 0.0, 0
        # Where there are too many for one round, those that were left out are first in the next.
        due = sorted(due, key=lambda entry: entry[2].previewed_at)[:most]
        guessed_before = self._desk.guesses.seconds
        expectations = [await self._desk.guesses.of(job, image) for job, image, _ in due]
        snapshots = [job.snapshot(image, None, expected) for (job, image, _), expected in zip(due, expectations)]
        start = time.monotonic()
        previews = await self._desk.renderer.preview(pipeline, snapshots)
        seconds = time.monotonic() - start + self._desk.guesses.seconds - guessed_before
        for (job, _, canvas), preview in zip(due, previews):
            canvas.num_previewed, canvas.previewed_at = preview.known, time.monotonic()
            if canvas.finished is None:
                self._desk.outbox.put(job, "preview", preview.body(), preview.image)
                self.metrics.previews.labels(name).inc()
        return seconds, len(due)

    def _is_due(self, canvas: Canvas) -> bool:
        has_news = canvas.finished is None and canvas.num_known > max(canvas.num_previewed, len(canvas.given.positions))
        return has_news and time.monotonic() - canvas.previewed_at >= self._settings.preview_interval

    # stopping

    async def _tell_of_stop(self) -> None:
        try:
            await self._beat()
        except RedisUnavailable as error:
            logger.warning("cannot tell that this worker stops: %s", error)

    async def _drain(self, needed: Sequence[asyncio.Future[None]]) -> None:
        """Lets jobs finish within the bound, then hands the rest back: at once, where one of those who are needed for
        that has failed. Raises WorkerCrashed then."""
        deadline = time.monotonic() + self._settings.drain_seconds
        while self._desk.jobs and time.monotonic() < deadline and not any(future.done() for future in needed):
            await asyncio.sleep(0.02)
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._desk.outbox.wait_until_idle()
                await self._hand_back(self._desk.jobs)
                await self._registry.leave(self._worker)
                await self._control.remove()
        except (TimeoutError, RedisUnavailable) as error:
            logger.warning("stopped without handing everything back: %s", error or "too slow")
        _raise_crash(needed)

    async def _hand_back(self, jobs: Sequence[RunningJob]) -> None:
        for job in jobs:
            self._desk.abort(job)
        calls = [self._queues[job.claim.model].release_call(job.claim) for job in jobs]
        answers = await scripts.run_many(self._connection, calls) if calls else []
        for job, answer in zip(jobs, answers):
            if answer == 1:
                logger.info("job handed back job=%s", job.claim.job_id)


async def _wait_for_stop(
    stopping: asyncio.Event, crash: asyncio.Future[None], tasks: Sequence[asyncio.Task[None]]
) -> None:
    """Raises WorkerCrashed when the engine or one of the tasks fails before."""
    stop = asyncio.create_task(stopping.wait())
    done, _ = await asyncio.wait((stop, crash, *tasks), return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    _raise_crash(done - {stop})


def _raise_crash(futures: Iterable[asyncio.Future[Any]]) -> None:
    for future in futures:
        if future.done() and (error := future.exception()) is not None:
            raise WorkerCrashed(f"{type(error).__name__}: {error}") from error
