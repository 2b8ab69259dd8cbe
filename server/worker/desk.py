"""The jobs of one worker: engine reports become job events, and every job gets exactly one ending."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from oar_core.engine.events import (
    EngineEvent,
    FrameMade,
    PatchesDecoded,
    PatchesRevised,
    SequenceAborted,
    SequenceFinished,
)
from oar_core.errors import RequestError
from oar_core.sampling.frames import Frame
from oar_wire.errors import RedisUnavailable
from oar_wire.events import Canceled, Completed, Failed, Restarted
from oar_wire.job import Failure, ImageLink
from oar_wire.outputs import Output, link
from server.jobs import keys
from server.jobs.connection import RedisConnection
from server.jobs.estimate import StepTimes
from server.jobs.events import StoredEvent
from server.jobs.job import JobState
from server.jobs.store import PNG
from server.jobs.worker_queue import LATE, Claim, Kept, WorkerQueue
from server.observability.metrics import WorkerMetrics
from server.observability.tracing import NO_TRACING, Tracing
from server.worker.edits import JobEdit
from server.worker.engine_thread import Abort, Add, Command, Crashed, Refused, Report, Stepped
from server.worker.guesses import Guesses
from server.worker.models import LoadedModel
from server.worker.outbox import RETRY_SECONDS, Outbox
from server.worker.preview import Renderer
from server.worker.running import Ending, Prompts, RunningJob, completed, kept_output, parse_sequence_id, write_values

logger = logging.getLogger(__name__)

WEBP = "image/webp"  # of videos
SMOOTHING = 0.1
PICTURE_SMOOTHING = 0.5  # a job tells it once


class Desk:
    """Runs on the event loop's thread alone."""

    def __init__(
        self,
        connection: RedisConnection,
        queues: Mapping[str, WorkerQueue],
        models: Mapping[str, LoadedModel],
        metrics: WorkerMetrics,
        send: Callable[[Command], None],
        on_crash: Callable[[BaseException], None],
        tracing: Tracing = NO_TRACING,
    ) -> None:
        """`send` gives the engine's thread a command; `on_crash` hears of what this process cannot survive."""
        self.outbox = Outbox(
            connection,
            queues,
            on_lost=self.lose,
            on_cancel=self.cancel,
            on_late=self.expire,
            on_ended=self._forget,
        )
        self.guesses = Guesses(models, send)
        self.renderer = Renderer(is_deterministic=any(model.mode == "deterministic" for model in models.values()))
        self.step_seconds = 0.0
        self.num_vanished = 0  # jobs that Redis knew nothing of any more
        self._queues = queues
        self.step_times = StepTimes()
        self.picture_seconds = 0.0  # smoothed, from the last step of a picture to its pixels
        self._latest_seconds = 0.0  # of the latest step
        self._tracing = tracing
        self._models = models
        self._metrics = metrics
        self._send = send
        self._on_crash = on_crash
        self._jobs: dict[str, RunningJob] = {}
        self._rows: Counter[str] = Counter()  # engine rows in use, by model
        self._room = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def jobs(self) -> tuple[RunningJob, ...]:
        return tuple(self._jobs.values())

    def find(self, job_id: str) -> RunningJob | None:
        return self._jobs.get(job_id)

    def has_room(self, model: str) -> bool:
        return self._rows[model] < self._models[model].slots

    async def wait_for_change(self) -> None:
        """Until rows were taken or given back, or `wake` was called."""
        self._room.clear()
        await self._room.wait()

    def wake(self) -> None:
        self._room.set()

    def begin(
        self,
        claim: Claim,
        log: Sequence[StoredEvent],
        edit: JobEdit | None = None,
        values: Mapping[tuple[int, int], Frame] | None = None,
        prompts: Prompts | None = None,
    ) -> None:
        """Starts a job, or goes on from the checkpoint in its event log when another worker began it. `values` are of
        frames; `prompts` are given where they were read before."""
        job = self._enter(RunningJob.begin(claim, log, edit, values))
        logger.info("job begun job=%s model=%s attempt=%d", claim.job_id, claim.model, claim.attempt)
        self._metrics.queue_time.labels(claim.model).observe(claim.age)
        if claim.is_restart:
            known = tuple(work.num_kept for work in job.works)
            # The script has said so itself where the job begins anew, with another model.
            if not claim.is_anew:
                self.outbox.put(job, "restarted", Restarted(attempt=claim.attempt, known=known).body())
            self._metrics.restarted.labels(claim.model).inc()
        try:
            requests = job.requests(self._models[claim.model].pipeline, prompts)
        except RequestError as error:
            self._fail(job, error)
            return
        for index, request in enumerate(requests):
            job.live.add(index)
            self._use_rows(job, +1)
            self._send(Add(claim.model, request))

    def refuse(self, claim: Claim, error: RequestError) -> None:
        """Fails a job that cannot begin."""
        self._fail(self._enter(RunningJob.begin(claim, ())), error)

    def _enter(self, job: RunningJob) -> RunningJob:
        previous = self._jobs.get(job.claim.job_id)
        if previous is None:
            self._metrics.running.labels(job.claim.model).inc()
        else:  # it was lost, and is back before that was known: one job still, whose old pictures nobody else would end
            self.abort(previous)
            self._leave_all(previous)
        self._jobs[job.claim.job_id] = job
        return job

    def _use_rows(self, job: RunningJob, images: int) -> None:
        self._rows[job.claim.model] += images * job.claim.params.rows_per_image
        # The last images of a job may wait in the engine for slots.
        used = min(self._rows[job.claim.model], self._models[job.claim.model].slots)
        self._metrics.rows_used.labels(job.claim.model).set(used)
        self._room.set()

    def on_report(self, report: Report) -> None:
        match report:
            case Stepped():
                self._count_step(report)
                for event in report.events:
                    self._on_event(event)
            case Refused(sequence_id=text, error=error):
                job, image = self._owner(text)
                if job is not None:
                    self._leave(job, image)
                    self._fail(job, error)
            case Crashed(error=error):
                self._on_crash(error)

    def _count_step(self, report: Stepped) -> None:
        previous = self.step_seconds or report.seconds
        self.step_seconds = previous + SMOOTHING * (report.seconds - previous)
        self.step_times.add(report.load.slots, report.seconds)
        self._latest_seconds = report.seconds
        occupancy = report.load.slots / self._models[report.model].slots
        self._metrics.count_step(report.model, report.seconds, report.rows, occupancy)
        self._metrics.cache_bytes.labels(report.model).set(report.cache_bytes)
        self._metrics.count_query(report.model, report.load.positions, report.load.pads, report.load.prefilled)

    def _on_event(self, event: EngineEvent) -> None:
        job, image = self._owner(event.sequence_id)
        if job is None:
            return
        match event:
            case PatchesDecoded():
                self._on_patches(job, image, event)
            case FrameMade():
                self._on_frame(job, image, event)
            case PatchesRevised():
                self._on_revised(job, image, event)
            case SequenceFinished(token_ids=token_ids):
                if job.clips:
                    job.clips[image].is_finished = True
                else:
                    job.canvases[image].finished = token_ids
                self._leave(job, image)
                if job.is_drawn:
                    self._tracing.drawn(job.claim.job_id)
                    self._metrics.decode.labels(job.claim.model).observe(time.monotonic() - job.first_patch_at)
                    self._spawn(self._complete(job))
            case SequenceAborted():
                self._leave(job, image)
            case _:
                pass

    def _on_patches(self, job: RunningJob, image: int, event: PatchesDecoded) -> None:
        if job.ending is not None:
            return
        model = job.claim.model
        patches = event.patches
        job.canvases[image].add(
            (patch.position for patch in patches),
            (patch.token_id for patch in patches),
            (patch.surprise for patch in patches if patch.surprise is not None),
        )
        layout = self._models[model].drawing.backbone.spec.layout
        self.outbox.put(job, "patches", job.describe(image, event.step, event.steps, event.patches, layout).body())
        partial_index = job.next_partial(image, event.step, event.steps)
        if partial_index is not None:
            job.canvases[image].num_partials += 1
            self._spawn(self._send_partial(job, image, partial_index))
        self._metrics.patches.labels(model).inc(len(event.patches))
        self._note_first(job)

    def _note_first(self, job: RunningJob) -> None:
        """Something of the job can be seen from now on."""
        model = job.claim.model
        if not job.has_patches:
            job.has_patches = True
            job.first_patch_at = time.monotonic()
            self._metrics.prefill.labels(model).observe(self._latest_seconds)
            self._metrics.first_patch.labels(model).observe(job.age)

    def _on_revised(self, job: RunningJob, image: int, event: PatchesRevised) -> None:
        if job.ending is not None:
            return
        job.canvases[image].redrawn |= {patch.position: patch.token_id for patch in event.patches}
        layout = self._models[job.claim.model].drawing.backbone.spec.layout
        told = job.describe_revision(image, event.step, event.steps, event.patches, layout)
        self.outbox.put(job, told.type, told.body())

    def _on_frame(self, job: RunningJob, image: int, event: FrameMade) -> None:
        if job.ending is not None:
            return
        job.clips[image].frames.append(event.values)
        self._spawn(self._send_frame(job, image, event))
        self._note_first(job)

    async def _send_frame(self, job: RunningJob, image: int, event: FrameMade) -> None:
        """The event, behind the frame's picture and its values: what it tells of is there."""
        model, count = self._models[job.claim.model].filming, job.claim.params.frames
        async with job.partials:
            png = await self.renderer.frame(model, event.values)
            output = Output("frame", image * count + event.number, PNG, png)
            body = job.describe_frame(image, event, output).body()
            values = Kept(False, keys.values_field(image, event.number), write_values(event.values))
            steps = len(model.backbone.spec.sigmas)
            self.outbox.put(job, "frame", body, steps=steps, kept=(*kept_output(output), values))

    async def _send_partial(self, job: RunningJob, image: int, index: int) -> None:
        model = job.claim.model
        snapshot = job.snapshot(image, index)
        async with job.partials:
            expectation = await self.guesses.of(job, image)
            if expectation is not None:  # of the picture as it is by now
                snapshot = job.snapshot(image, index, expectation)
            (partial,) = await self.renderer.preview(self._models[model].drawing, [snapshot])
            self.outbox.put(job, partial.type, partial.body())
        self._metrics.previews.labels(model).inc()

    def _leave(self, job: RunningJob, image: int) -> None:
        """A sequence is out of the engine."""
        if image in job.live:
            job.live.remove(image)
            self._use_rows(job, -1)

    async def _complete(self, job: RunningJob) -> None:
        start = time.monotonic()
        async with job.partials:
            outputs = await (self._videos(job) if job.clips else self._images(job))
        rendering = time.monotonic() - start
        self._metrics.render.labels(job.claim.model).observe(rendering)
        previous = self.picture_seconds or rendering / len(outputs)
        self.picture_seconds = previous + PICTURE_SMOOTHING * (rendering / len(outputs) - previous)
        job_id, seconds = job.claim.job_id, round(time.monotonic() - job.claimed_at, 3)
        links = tuple(link(job_id, output.kind, output.index, output.media_type) for output in outputs)
        frames = range(job.claim.params.num_outputs("frame"))  # they are there already
        body = Completed(
            images=tuple(ImageLink(index=made.index, url=made.url) for made in links if made.kind == "image"),
            outputs=(*(link(job_id, "frame", index, PNG) for index in frames), *links),
            seconds=seconds,
            fingerprint=self._models[job.claim.model].fingerprint,
        ).body()
        self.outbox.end(job, completed(body, outputs))

    async def _images(self, job: RunningJob) -> list[Output]:
        token_ids = [canvas.finished for canvas in job.canvases if canvas.finished is not None]
        pngs = await self.renderer.finish(self._models[job.claim.model].drawing, token_ids, job.edit)
        return [Output("image", index, PNG, png) for index, png in enumerate(pngs)]

    async def _videos(self, job: RunningJob) -> list[Output]:
        clips = [clip.frames for clip in job.clips]
        videos = await self.renderer.videos(self._models[job.claim.model].filming, clips)
        return [Output("video", index, WEBP, video) for index, video in enumerate(videos)]

    def _fail(self, job: RunningJob, error: RequestError) -> None:
        body = Failed(error=Failure(code=error.code, message=str(error), field=error.field)).body()
        self.abort(job)
        self.outbox.end(job, Ending(JobState.FAILED, body))

    def cancel(self, job: RunningJob) -> None:
        self.abort(job)
        self.outbox.end(job, Ending(JobState.CANCELED, Canceled().body()))

    def abort(self, job: RunningJob) -> None:
        for image in job.live:
            self._send(Abort(job.claim.model, job.sequence_id(image)))

    def expire(self, job: RunningJob) -> None:
        """The job's deadline has passed."""
        self._metrics.expired.labels(job.claim.model).inc(job.ending is None)
        self.abort(job)
        self.outbox.end(job, Ending(JobState.FAILED, LATE.body()))

    def lose(self, job: RunningJob) -> None:
        """Another worker has the job now, or Redis has lost it: nothing more is drawn or written."""
        logger.warning("lost job=%s", job.claim.job_id)
        self._metrics.lost.labels(job.claim.model).inc()
        self.abort(job)
        self._drop(job)
        self._spawn(self._end_lost(job))

    async def _end_lost(self, job: RunningJob) -> None:
        """Tells clients of a job that Redis knows nothing of any more."""
        # Of what is pending, some may have been written and read though no answer came.
        seq = job.seq + len(job.pending) + 1
        while True:
            try:
                is_gone = await self._queues[job.claim.model].end_lost(job.claim, seq, job.age)
                break
            except RedisUnavailable as error:
                logger.warning("a lost job waits for redis job=%s: %s", job.claim.job_id, error)
                await asyncio.sleep(RETRY_SECONDS)
        if is_gone:
            self.num_vanished += 1
            logger.error("job ended, as Redis has lost it job=%s", job.claim.job_id)

    def _forget(self, job: RunningJob) -> None:
        """The job's ending is in Redis."""
        assert job.ending is not None
        model, outcome = job.claim.model, job.ending.state
        logger.info("job ended job=%s outcome=%s seconds=%.3f", job.claim.job_id, outcome, job.age)
        self._metrics.jobs.labels(model, outcome.value).inc()
        if outcome is JobState.COMPLETED:
            self._metrics.images.labels(model).inc(len(job.works))
            self._metrics.e2e.labels(model).observe(job.age)
        self._drop(job)

    def _drop(self, job: RunningJob) -> None:
        """A lost job may be back already, with a higher epoch."""
        if self._jobs.get(job.claim.job_id) is job:
            del self._jobs[job.claim.job_id]
            self._metrics.running.labels(job.claim.model).dec()
            self._tracing.end(job.claim.job_id, job.ending.state if job.ending else "lost")
        self._leave_all(job)

    def _leave_all(self, job: RunningJob) -> None:
        for image in tuple(job.live):
            self._leave(job, image)

    def _owner(self, sequence_id: str) -> tuple[RunningJob | None, int]:
        """None for a job that is gone, or that was lost and taken again since."""
        job_id, epoch, image = parse_sequence_id(sequence_id)
        job = self._jobs.get(job_id)
        return (job if job is not None and job.claim.epoch == epoch else None), image

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_crash(error)
