"""Estimates of how long things take, and how much they write: the lengths of all jobs are known, and workers measure
their steps.

Pure arithmetic.

Work is counted in row-steps: an image takes one engine row (two when it is guided) for each of its steps. A worker with
s slots does s row-steps in one engine step while it is full, which is when waiting matters. How long such a step takes
is not known from short ones: a GPU does many rows in the time of one, a CPU does not. So workers tell what a step costs
and what each row adds.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from oar_wire.job import GenerationParams
from oar_wire.model import ModelInfo, WorkerInfo

MIN_RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 3600.0
START_SECONDS = 5.0  # that a worker needs to load a model, where none is alive
ASSUMED_SLOTS = 64  # where nothing is measured yet
ASSUMED_STEP_SECONDS = 0.05
MEMORY = 0.99  # share of a step's weight that is left after the next one
MIN_SPREAD = 0.01  # of the numbers of rows, as the square of their deviation's share: below it a slope is noise
PATCH_BYTES = 120  # of a patch in the event log
VALUE_BYTES = 4  # of a frame's value, while its video is made
PNG_BYTES = 2.0  # a pixel, of photographs; the sizes of flat pictures are far below
PREVIEW_BYTES = 0.5  # a pixel, in base64


@dataclass(frozen=True)
class Speed:
    """One worker's."""

    slots: int
    step_seconds: float  # 0 before its first step
    base_seconds: float = 0.0
    row_seconds: float = 0.0
    picture_seconds: float = 0.0

    @classmethod
    def of(cls, worker: WorkerInfo) -> "Speed":
        return cls(worker.slots, worker.step_seconds, worker.base_seconds, worker.row_seconds, worker.picture_seconds)

    def seconds_of(self, rows: int) -> float:
        """Seconds of a step that so many rows share; 0 before the first."""
        return self.base_seconds + min(rows, self.slots) * self.row_seconds or self.step_seconds


@dataclass(frozen=True)
class Fleet:
    """The workers that take a model's jobs."""

    workers: tuple[Speed, ...] = ()

    @classmethod
    def of(cls, model: str, workers: Iterable[WorkerInfo]) -> "Fleet":
        """Workers that serve `model` and are not stopping."""
        serving = (worker for worker in workers if model in worker.models and not worker.is_draining)
        return cls(tuple(map(Speed.of, serving)))

    @property
    def is_measured(self) -> bool:
        return any(worker.step_seconds > 0 for worker in self.workers)

    @property
    def slots(self) -> int:
        return sum(worker.slots for worker in self.workers)

    @property
    def step_seconds(self) -> float:
        """Seconds of the slowest worker that measured it: which one a job will meet is not known."""
        return max((worker.step_seconds for worker in self.workers), default=0.0) or ASSUMED_STEP_SECONDS

    @property
    def picture_seconds(self) -> float:
        """Seconds from a picture's last step to its pixels, by the slowest worker."""
        return max((worker.picture_seconds for worker in self.workers), default=0.0)

    def rate(self, rows: int | None = None) -> float:
        """Row-steps a second of all workers together while they have so many rows to work on; None is as many as they
        can have. A worker that measured nothing yet counts as the slowest."""
        if not self.slots:
            return ASSUMED_SLOTS / ASSUMED_STEP_SECONDS
        share = 1.0 if rows is None else min(1.0, rows / self.slots)
        loads = ((worker, max(1, round(share * worker.slots))) for worker in self.workers)
        return sum(used / (worker.seconds_of(used) or self.step_seconds) for worker, used in loads)


def retry_after(work: float, fleet: Fleet, rows: int | None = None, pictures: int = 0) -> float:
    """Seconds until the fleet has done `work` row-steps, all that waits or runs now, in so many rows, and has decoded
    so many pictures: then there is surely room.

    Between 1 and 3600. Without a worker, one has to start first.
    """
    start = 0.0 if fleet.workers else START_SECONDS
    decoding = pictures * fleet.picture_seconds / max(1, len(fleet.workers))
    return min(MAX_RETRY_SECONDS, max(MIN_RETRY_SECONDS, start + work / fleet.rate(rows) + decoding))


def eta(ahead: float, own: float, rows: int, fleet: Fleet, pictures: int = 0) -> float | None:
    """Seconds until a job of so many pictures is finished that has `own` row-steps left in `rows` rows, behind `ahead`
    row-steps of others.

    None where nothing was measured yet.
    """
    if not fleet.is_measured:
        return None
    steps = math.ceil(own / min(rows, max(1, *(worker.slots for worker in fleet.workers))))
    alone = max(worker.seconds_of(rows) for worker in fleet.workers)
    return ahead / fleet.rate() + steps * max(fleet.step_seconds, alone) + pictures * fleet.picture_seconds


def output_bytes(params: GenerationParams, model: ModelInfo) -> int:
    """About what a job will have written to Redis when it has ended: its log, its previews and its pictures."""
    height, width = model.image_size
    if params.frames:  # each is there twice, alone and in its video
        values = VALUE_BYTES * model.num_tokens * model.known_layout.channels
        return math.ceil(params.n * params.frames * (2 * PNG_BYTES * height * width + values + PATCH_BYTES))
    num_previews = params.partial_images + params.previews
    pixels = height * width * (PNG_BYTES + PREVIEW_BYTES * num_previews)
    return math.ceil(params.n * (pixels + PATCH_BYTES * model.num_tokens))


class StepTimes:
    """Time of an engine's step: `base_seconds`, and `row_seconds` for each row that shares it.

    A line through the steps so far, by least squares; a step counts less with every one that follows.
    """

    def __init__(self) -> None:
        self._weight = 0.0
        self._rows = 0.0
        self._seconds = 0.0
        self._rows_squared = 0.0
        self._products = 0.0

    def add(self, rows: int, seconds: float) -> None:
        self._weight = MEMORY * self._weight + 1
        self._rows = MEMORY * self._rows + rows
        self._seconds = MEMORY * self._seconds + seconds
        self._rows_squared = MEMORY * self._rows_squared + rows * rows
        self._products = MEMORY * self._products + rows * seconds

    @property
    def row_seconds(self) -> float:
        """Seconds a row: half of a step's time is the rows' where all steps had the same number of rows."""
        if not self._rows:
            return 0.0
        spread = self._weight * self._rows_squared - self._rows**2
        share = self._seconds / self._rows
        if spread <= MIN_SPREAD * self._rows**2:
            return share / 2
        slope = (self._weight * self._products - self._rows * self._seconds) / spread
        return min(max(0.0, slope), share)

    @property
    def base_seconds(self) -> float:
        return max(0.0, self._seconds - self.row_seconds * self._rows) / self._weight if self._weight else 0.0
