"""Outputs of a job, rendered beside the engine and written to the log: partial images, frames, finished outputs."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence

from oar_core.engine.events import FrameMade
from oar_wire.errors import ResultsUnavailable
from oar_wire.events import Completed
from oar_wire.events import Frame as FrameEvent
from oar_wire.job import ImageLink
from oar_wire.outputs import OutputData, link
from server.jobs import keys
from server.jobs.log import Ending, Kept, kept_output
from server.jobs.store import PNG
from server.observability.metrics import WorkerMetrics
from server.observability.spans import NO_TRACING, Tracing
from server.results.store import ResultKey, ResultWriter
from server.tasks import BackgroundTasks
from server.worker.models import LoadedModel
from server.worker.outbox import Outbox
from server.worker.previews import Expectations
from server.worker.render import Renderer
from server.worker.running import RunningJob, Snapshot, write_values
from server.worker.speed import MeasuredSpeed
from server.worker.table import JobTable

logger = logging.getLogger(__name__)

WEBP = "image/webp"  # of videos
SAVE_AGAIN_SECONDS = 1.0


class OutputWriter:
    """Its methods return at once; what a job makes is written in order, and before the job's ending."""

    def __init__(
        self,
        outbox: Outbox,
        renderer: Renderer,
        expectations: Expectations,
        models: Mapping[str, LoadedModel],
        metrics: WorkerMetrics,
        speed: MeasuredSpeed,
        background: BackgroundTasks,
        table: JobTable,
        results: ResultWriter,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self._outbox = outbox
        self._renderer = renderer
        self._expectations = expectations
        self._models = models
        self._metrics = metrics
        self._speed = speed
        self._background = background
        self._table = table
        self._results = results
        self._tracing = tracing

    def add_partial(self, job: RunningJob, image: int, index: int) -> None:
        """Adds the picture as it is now, however late it is rendered."""
        self._background.start(self._write_partial(job, job.snapshot(image, index)))

    async def _write_partial(self, job: RunningJob, snapshot: Snapshot) -> None:
        model = job.claim.model
        async with job.partials:
            expectation = await self._expectations.of(job, snapshot.image)
            if expectation is not None:  # of the picture as it is by then
                snapshot = job.snapshot(snapshot.image, snapshot.partial_index, expectation)
            (partial,) = await self._renderer.preview(self._models[model].drawing, [snapshot])
            self._outbox.put(job, partial.type, partial.body())
        self._metrics.previews.labels(model).inc()

    def add_frame(self, job: RunningJob, video: int, event: FrameMade) -> None:
        self._background.start(self._write_frame(job, video, event))

    async def _write_frame(self, job: RunningJob, video: int, event: FrameMade) -> None:
        """The event, behind the frame's picture and its values: what it tells of is there."""
        model, count = self._models[job.claim.model].filming, job.claim.params.frames
        async with job.partials:
            png = await self._renderer.frame(model, event.values)
            output = OutputData("frame", video * count + event.number, PNG, png)
            body = describe_frame(job, video, event, output).body()
            values = Kept(False, keys.values_field(video, event.number), write_values(event.values))
            steps = len(model.backbone.spec.sigmas)
            self._outbox.put(job, "frame", body, steps=steps, kept=(*kept_output(output), values))

    def complete(self, job: RunningJob) -> None:
        """Renders and ends a job that is drawn."""
        self._tracing.drawn(job.claim.job_id)
        self._metrics.decode.labels(job.claim.model).observe(time.monotonic() - job.first_patch_at)
        self._background.start(self._complete(job))

    async def _complete(self, job: RunningJob) -> None:
        start = time.monotonic()
        async with job.partials:
            outputs = await (self._videos(job) if job.videos else self._images(job))
        rendering = time.monotonic() - start
        self._metrics.render.labels(job.claim.model).observe(rendering)
        self._speed.count_pictures(rendering, len(outputs))
        job_id, seconds = job.claim.job_id, round(time.monotonic() - job.claimed_at, 3)
        links = tuple(link(job_id, output.kind, output.index, output.media_type) for output in outputs)
        frames = range(job.claim.params.num_outputs("frame"))  # they are there already
        body = Completed(
            images=tuple(ImageLink(index=made.index, url=made.url) for made in links if made.kind == "image"),
            outputs=(*(link(job_id, "frame", index, PNG) for index in frames), *links),
            seconds=seconds,
            fingerprint=self._models[job.claim.model].fingerprint,
        ).body()
        rest = await self._save(job, outputs)
        if rest is not None:
            self._outbox.end(job, Ending.completed(body, rest, is_archived=self._results.is_apart))

    async def _save(self, job: RunningJob, outputs: Sequence[OutputData]) -> Sequence[OutputData] | None:
        """Stores outputs, however long the store is away. Returns those that go with the ending; None where the job has
        ended otherwise meanwhile, or is another worker's."""
        key = ResultKey(job.claim.tenant, job.claim.job_id, job.claim.epoch)
        while job.ending is None and self._table.find(job.claim.job_id) is job:
            try:
                return await self._results.save(key, outputs)
            except ResultsUnavailable:
                self._metrics.results_failed.labels(job.claim.model).inc()
                logger.warning("a finished job waits for the store of results job=%s", job.claim.job_id)
                await asyncio.sleep(SAVE_AGAIN_SECONDS)
        return None

    async def _images(self, job: RunningJob) -> list[OutputData]:
        token_ids = [picture.finished for picture in job.pictures if picture.finished is not None]
        pngs = await self._renderer.finish(self._models[job.claim.model].drawing, token_ids, job.edit)
        return [OutputData("image", index, PNG, png) for index, png in enumerate(pngs)]

    async def _videos(self, job: RunningJob) -> list[OutputData]:
        frames = [video.frames for video in job.videos]
        videos = await self._renderer.videos(self._models[job.claim.model].filming, frames)
        return [OutputData("video", index, WEBP, video) for index, video in enumerate(videos)]


def describe_frame(job: RunningJob, video: int, event: FrameMade, output: OutputData) -> FrameEvent:
    return FrameEvent(
        image=video,
        frame=event.number,
        frames=job.claim.params.frames,
        step=event.step,
        steps=event.steps,
        output=link(job.claim.job_id, output.kind, output.index, output.media_type),
    )
