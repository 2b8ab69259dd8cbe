"""Measures whether a step's time depends on the number of waiting pictures."""

from dataclasses import dataclass

from oar_lab.bench.clock import Clock, Setting, quantile
from oar_lab.bench.subject import Subject
from oar_lab.bench.table import BenchReport, table


@dataclass(frozen=True)
class DepthRow:
    waiting: int
    step_ms: float  # median
    relative: float  # to the first row


@dataclass(frozen=True)
class DepthReport(BenchReport):
    model: str
    slots: int
    rows: list[DepthRow]
    setting: Setting

    def table(self) -> str:
        headers = ("pictures waiting", f"{self.setting.clock} ms a step", "relative")
        return table(headers, ((row.waiting, row.step_ms, row.relative) for row in self.rows))


def measure_depth(subject: Subject, *, slots: int, depths: tuple[int, ...]) -> DepthReport:
    """The steps of a full engine's first pictures, while others wait behind them."""
    clock = Clock(subject.device)
    _median_step(subject, clock, slots, depths[0])  # does not count
    medians = [_median_step(subject, clock, slots, depth) for depth in depths]
    rows = [DepthRow(depth, 1e3 * seconds, seconds / medians[0]) for depth, seconds in zip(depths, medians)]
    return DepthReport(subject.name, slots, rows, clock.setting(subject.dtype))


def _median_step(subject: Subject, clock: Clock, slots: int, depth: int) -> float:
    engine, full = subject.engine(slots), slots // 2
    for request in subject.requests(full + depth):
        engine.add(request)
    engine.step()
    return quantile([clock.seconds(engine.step) for _ in range(engine.forecast()["0"] - 1)], 0.5)
