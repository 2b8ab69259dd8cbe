"""Offline throughput by batch size; a batch of one is the latency of one."""

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from oar_core.bench.batching import run_to_end
from oar_core.bench.clock import Clock, Setting
from oar_core.bench.subject import Subject
from oar_core.bench.table import table


@dataclass(frozen=True)
class ThroughputRow:
    batch: int
    seconds: float  # of the whole batch, from request to pixels
    images_per_second: float


@dataclass(frozen=True)
class ThroughputReport:
    model: str
    steps: int
    rows: list[ThroughputRow]
    setting: Setting

    def table(self) -> str:
        rows = ((row.batch, row.seconds, row.images_per_second) for row in self.rows)
        return table(("pictures at once", f"{self.setting.clock} seconds", "pictures/s"), rows)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure_throughput(
    subject: Subject, *, batches: tuple[int, ...], steps: int | None, repeats: int
) -> ThroughputReport:
    """Medians of `repeats` runs in turn, after one that does not count."""
    clock, plan = Clock(subject.device), subject.with_steps(steps)
    works = [
        partial(run_to_end, subject.engine(2 * batch), subject, subject.requests(batch, plan)) for batch in batches
    ]
    measured = clock.medians(works, repeats)
    rows = [ThroughputRow(batch, seconds, batch / seconds) for batch, seconds in zip(batches, measured)]
    length = subject.backbone.config.num_tokens
    return ThroughputReport(subject.name, plan.steps or length, rows, clock.setting(subject.dtype))
