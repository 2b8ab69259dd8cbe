"""Offline throughput by batch size; a batch of one is the latency of one."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from statistics import median

from oar_core.host_memory import page_faults
from oar_lab.bench.batching import run_to_end
from oar_lab.bench.clock import Clock, Setting
from oar_lab.bench.subject import Subject
from oar_lab.bench.table import BenchReport, table


@dataclass(frozen=True)
class ThroughputRow:
    batch: int
    seconds: float  # of the whole batch, from request to pixels
    images_per_second: float
    new_pages: float  # of memory, that the kernel gave for a picture


@dataclass(frozen=True)
class ThroughputReport(BenchReport):
    model: str
    steps: int
    rows: list[ThroughputRow]
    setting: Setting

    def table(self) -> str:
        rows = ((row.batch, row.seconds, row.images_per_second, row.new_pages) for row in self.rows)
        return table(
            ("pictures at once", f"{self.setting.clock} seconds", "pictures/s", "new pages of memory a picture"), rows
        )


@dataclass
class Counted:
    """Work, and the pages that the kernel gave each time that it was done."""

    work: Callable[[], object]
    faults: list[int] = field(default_factory=list)

    def __call__(self) -> None:
        before = page_faults()
        self.work()
        self.faults.append(page_faults() - before)


def measure_throughput(
    subject: Subject, *, batches: tuple[int, ...], steps: int | None, repeats: int
) -> ThroughputReport:
    """Medians of `repeats` runs in turn, after one that does not count."""
    clock, plan = Clock(subject.device), subject.with_steps(steps)
    works = [
        Counted(partial(run_to_end, subject.engine(2 * batch), subject, subject.requests(batch, plan)))
        for batch in batches
    ]
    measured = clock.medians(works, repeats)
    rows = [
        ThroughputRow(batch, seconds, batch / seconds, median(work.faults[1:]) / batch)
        for batch, seconds, work in zip(batches, measured, works)
    ]
    length = subject.backbone.spec.num_tokens
    return ThroughputReport(subject.name, plan.steps or length, rows, clock.setting(subject.dtype))
