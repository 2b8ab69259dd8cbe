"""Previews of pictures that are being drawn: when they are made, of what, and how much time they may take."""

import asyncio
import math
import time
from collections.abc import Callable, Mapping

from oar_core.models.model import Model
from oar_core.sampling.expectation import Expectation
from server.observability.metrics import WorkerMetrics
from server.settings import Settings
from server.worker.engine_thread import Expect
from server.worker.models import LoadedModel
from server.worker.outbox import Outbox
from server.worker.render import Renderer
from server.worker.running import RunningJob, RunningPicture
from server.worker.table import JobTable

SHARE = 0.1  # of the time: the engine needs the same cores
ROUND_SECONDS = 1.0  # that a model's round may take, unless a single picture takes longer
SMOOTHING = 0.3


class PreviewBudget:
    """Previews take their share of the time and no more, however slow they are and however many pictures run.

    Where a model's pictures are dear, a round draws few of them: a long round would hold up all other work.
    """

    def __init__(self, interval: float, batch: int) -> None:
        """Rounds lie at least `interval` seconds apart and draw up to `batch` pictures of each model."""
        self._interval = interval
        self._batch = batch
        self._picture_seconds: dict[str, float] = {}  # of a model's previews, smoothed
        self._spent = 0.0  # in this round

    def most(self, model: str) -> int:
        """Number of the model's pictures that the round may draw: one as long as nobody knows what they cost."""
        cost = self._picture_seconds.get(model)
        return 1 if cost is None else min(self._batch, max(1, math.floor(ROUND_SECONDS / max(cost, 1e-6))))

    def spend(self, model: str, seconds: float, pictures: int) -> None:
        """Counts what was drawn."""
        self._spent += seconds
        if pictures:
            each = seconds / pictures
            previous = self._picture_seconds.get(model, each)
            self._picture_seconds[model] = previous + SMOOTHING * (each - previous)

    def end_round(self) -> float:
        """Returns the seconds to wait before the next round."""
        spent, self._spent = self._spent, 0.0
        return max(self._interval, spent * (1 / SHARE - 1))


class Expectations:
    """Expectations of a model at unknown positions, for image tokenizers that have no code for "unknown".

    Asks about one picture at a time, between two steps of its engine, which therefore waits for one query at the most.
    """

    def __init__(self, models: Mapping[str, LoadedModel], send: Callable[[Expect], None]) -> None:
        self._models = models
        self._send = send
        self.seconds = 0.0  # that engines have spent on it so far

    async def of(self, job: RunningJob, image: int) -> Expectation | None:
        """Expects all positions that were unknown when the engine answered. None where there is nothing to ask: the
        tokenizer needs no expectation, the backbone cannot be asked, or the picture does not run."""
        model = self._models[job.claim.model]
        if not model.drawing.guesses_unknown:
            return None
        command = Expect(model.name, job.sequence_id(image))
        self._send(command)
        answer = await asyncio.wrap_future(command.answer)
        self.seconds += answer.seconds
        return answer.expectation


class Previews:
    """Rounds of previews, of all pictures that have something new to show."""

    def __init__(
        self,
        table: JobTable,
        outbox: Outbox,
        renderer: Renderer,
        expectations: Expectations,
        models: Mapping[str, LoadedModel],
        metrics: WorkerMetrics,
        settings: Settings,
    ) -> None:
        self._table = table
        self._outbox = outbox
        self._renderer = renderer
        self._expectations = expectations
        self._models = models
        self._metrics = metrics
        self._interval = settings.preview_interval
        self._budget = PreviewBudget(settings.preview_interval / 2, settings.preview_batch)

    async def run(self) -> None:
        """Runs until it is cancelled. A worker without jobs does not wake up for it."""
        while True:
            await self._table.has_jobs.wait()
            await asyncio.sleep(await self.make_round())

    async def make_round(self) -> float:
        """Makes the previews that are due. Returns how many seconds to wait before the next round."""
        for model in self._models.values():
            if isinstance(model.pipeline, Model):
                most = self._budget.most(model.name)
                self._budget.spend(model.name, *await self._draw(model.name, model.pipeline, most))
        return self._budget.end_round()

    async def _draw(self, name: str, pipeline: Model, most: int) -> tuple[float, int]:
        """Draws up to `most` pictures; returns how long it worked, and how many it drew."""
        due = self._due(name)[:most]
        if not due:
            return 0.0, 0
        expecting = self._expectations.seconds
        expectations = [await self._expectations.of(job, image) for job, image, _ in due]
        snapshots = [job.snapshot(image, None, expected) for (job, image, _), expected in zip(due, expectations)]
        start = time.monotonic()
        previews = await self._renderer.preview(pipeline, snapshots)
        seconds = time.monotonic() - start + self._expectations.seconds - expecting
        for (job, _, picture), preview in zip(due, previews):
            picture.num_previewed, picture.previewed_at = preview.known, time.monotonic()
            if picture.finished is None:
                self._outbox.put(job, "preview", preview.body(), preview.image)
                self._metrics.previews.labels(name).inc()
        return seconds, len(due)

    def _due(self, model: str) -> list[tuple[RunningJob, int, RunningPicture]]:
        """Finds the due ones. Where there are too many for one round, those that were left out are first in the
        next."""
        due = [
            (job, image, picture)
            for job in self._table.jobs
            if job.claim.model == model and job.claim.params.previews and job.ending is None
            for image, picture in enumerate(job.pictures)
            if self._is_due(picture)
        ]
        return sorted(due, key=lambda entry: entry[2].previewed_at)

    def _is_due(self, picture: RunningPicture) -> bool:
        known = max(picture.num_previewed, len(picture.given.positions))
        has_changed = picture.finished is None and picture.num_known > known
        return has_changed and time.monotonic() - picture.previewed_at >= self._interval
