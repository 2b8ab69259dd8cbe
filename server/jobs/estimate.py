"""How long things take, and how much they write: the lengths of all jobs are known, and workers measure their steps.

Pure arithmetic.

Work is counted in row-steps: an image takes one engine row (two when it is guided) for each of its steps. A worker with
s slots does s row-steps in one engine step while it is full, which is when waiting matters.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from server.schemas.generation import GenerationParams
from server.schemas.model import ModelInfo, WorkerInfo

MIN_RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 3600.0
START_SECONDS = 5.0  # that a worker needs to load a model, where none is alive
ASSUMED_SLOTS = 64  # where nothing is measured yet
ASSUMED_STEP_SECONDS = 0.05
PATCH_BYTES = 120  # of a patch in the event log
PNG_BYTES = 2.0  # a pixel, of photographs; the sizes of flat pictures are far below
PREVIEW_BYTES = 0.5  # a pixel, in base64


@dataclass(frozen=True)
class Speed:
    """One worker's."""

    slots: int
    step_seconds: float  # 0 before its first step


@dataclass(frozen=True)
class Fleet:
    """The workers that take a model's jobs."""

    workers: tuple[Speed, ...] = ()

    @classmethod
    def of(cls, model: str, workers: Iterable[WorkerInfo]) -> "Fleet":
        """Those that serve `model` and are not stopping."""
        serving = (worker for worker in workers if model in worker.models and not worker.is_draining)
        return cls(tuple(Speed(worker.slots, worker.step_seconds) for worker in serving))

    @property
    def is_measured(self) -> bool:
        return any(worker.step_seconds > 0 for worker in self.workers)

    @property
    def slots(self) -> int:
        return sum(worker.slots for worker in self.workers)

    @property
    def step_seconds(self) -> float:
        """Of the slowest worker that measured it: which one a job will meet is not known."""
        return max((worker.step_seconds for worker in self.workers), default=0.0) or ASSUMED_STEP_SECONDS

    @property
    def rate(self) -> float:
        """Row-steps a second of all workers together; one that measured nothing yet counts as the slowest."""
        known = sum(worker.slots / (worker.step_seconds or self.step_seconds) for worker in self.workers)
        return known or ASSUMED_SLOTS / ASSUMED_STEP_SECONDS


def retry_after(work: float, fleet: Fleet) -> float:
    """Seconds until the fleet has done `work` row-steps, all that waits or runs now: then there is surely room.

    Between 1 and 3600. Without a worker, one has to start first.
    """
    start = 0.0 if fleet.workers else START_SECONDS
    return min(MAX_RETRY_SECONDS, max(MIN_RETRY_SECONDS, start + work / fleet.rate))


def eta(ahead: float, own: float, rows: int, fleet: Fleet) -> float | None:
    """Seconds until a job is finished that has `own` row-steps left in `rows` rows, behind `ahead` row-steps of others.

    None where nothing was measured yet.
    """
    if not fleet.is_measured:
        return None
    steps = math.ceil(own / min(rows, max(1, *(worker.slots for worker in fleet.workers))))
    return ahead / fleet.rate + steps * fleet.step_seconds


def output_bytes(params: GenerationParams, model: ModelInfo) -> int:
    """About what a job will have written to Redis when it has ended: its log, its previews and its pictures."""
    height, width = model.image_size
    num_previews = params.partial_images + params.previews
    pixels = height * width * (PNG_BYTES + PREVIEW_BYTES * num_previews)
    return math.ceil(params.n * (pixels + PATCH_BYTES * model.num_tokens))
