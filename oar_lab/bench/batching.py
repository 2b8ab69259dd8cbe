"""The same pictures one after another and all at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from oar_core.engine.engine import Engine
from oar_core.engine.events import SequenceFinished
from oar_core.engine.sequence import SequenceRequest
from oar_lab.bench.clock import Clock, Setting
from oar_lab.bench.subject import Subject
from oar_lab.bench.table import BenchReport, table


@dataclass(frozen=True)
class BatchingReport(BenchReport):
    """Seconds for the same pictures, made one after another and all at once."""

    model: str
    num_images: int
    steps: int
    one_by_one_seconds: float
    at_once_seconds: float
    ratio: float  # at once / one by one
    images_per_second: float  # at once
    setting: Setting

    def table(self) -> str:
        rows = (("one by one", self.one_by_one_seconds), ("at once", self.at_once_seconds))
        return table(
            (f"{self.num_images} pictures, {self.steps} steps", f"{self.setting.clock} seconds", "pictures/s"),
            ((name, seconds, self.num_images / seconds) for name, seconds in rows),
        )


def measure_batching(subject: Subject, *, num_images: int, steps: int | None, repeats: int) -> BatchingReport:
    """Medians of `repeats` runs in turn, after one warm-up. `steps` None is the model's default."""
    plan, clock = subject.with_steps(steps), Clock(subject.device)
    requests = subject.requests(num_images, plan)
    engine = subject.engine(2 * num_images)
    one_by_one, at_once = clock.medians(
        [
            lambda: [run_to_end(engine, subject, [request]) for request in requests],
            lambda: run_to_end(engine, subject, requests),
        ],
        repeats,
    )
    return BatchingReport(
        model=subject.name,
        num_images=num_images,
        steps=plan.steps or subject.backbone.spec.num_tokens,
        one_by_one_seconds=one_by_one,
        at_once_seconds=at_once,
        ratio=at_once / one_by_one,
        images_per_second=num_images / at_once,
        setting=clock.setting(subject.dtype),
    )


@torch.inference_mode()
def run_to_end(engine: Engine, subject: Subject, requests: Sequence[SequenceRequest]) -> None:
    """Runs requests to their pixels."""
    for request in requests:
        engine.add(request)
    finished: list[tuple[int, ...]] = []
    while engine.has_work:
        finished += [event.token_ids for event in engine.step() if isinstance(event, SequenceFinished)]
    subject.tokenizer.decode(torch.tensor(finished, device=subject.device))
