"""Batching in three manners under the same open-loop load: Poisson arrivals into the bare engine."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from oar_core.bench.batching import run_to_end
from oar_core.bench.clock import Clock, Setting, quantile
from oar_core.bench.peak import Bounds, PeakRow, find_peaks
from oar_core.bench.replay import CONTINUOUS, STATIC, Lives, poisson_times, replay
from oar_core.bench.subject import Subject
from oar_core.bench.table import table
from oar_core.engine.sequence import SequenceRequest

PARTS = (8, 4, 2, 1)  # of the greatest number of steps


@dataclass(frozen=True)
class ArrivalsRow:
    batching: str
    load: float  # of what the engine can do with full batches
    rate: float  # pictures a second that arrive
    first_patch_p50: float  # seconds from arrival
    p50: float  # seconds from arrival to the last token
    p95: float
    p99: float
    goodput: float  # pictures a second that are ready within the bound


@dataclass(frozen=True)
class ArrivalsReport:
    model: str
    slots: int
    num_images: int
    steps: tuple[int, ...]
    alone: tuple[float, ...]  # seconds of a picture that has the engine to itself, for each of `steps`
    capacity: float  # pictures a second, full batches one after another
    bound: float  # times the seconds alone
    rows: list[ArrivalsRow]
    peaks: list[PeakRow]
    setting: Setting

    def table(self) -> str:
        headers = ("batching", "load", "arriving/s", "first patch p50 s", "p50 s", "p95 s", "p99 s", "goodput/s")
        rows = ((r.batching, r.load, r.rate, r.first_patch_p50, r.p50, r.p95, r.p99, r.goodput) for r in self.rows)
        peaks = ((r.bound, r.batching, r.rate, r.to_static, r.to_one) for r in self.peaks)
        lengths = ", ".join(f"{steps} steps {1e3 * alone:.0f} ms" for steps, alone in zip(self.steps, self.alone))
        text = f"Capacity {self.capacity:.2f} pictures/s. Alone: {lengths}. Goodput is for the bound of the longest."
        return "\n\n".join(
            (
                *([table(headers, rows)] if self.rows else ()),
                table(("p95 within", "batching", "most arriving/s", "to static", "to one at a time"), peaks),
                text,
            )
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure_arrivals(
    subject: Subject,
    *,
    slots: int,
    num_images: int,
    loads: tuple[float, ...],
    bound: float,
    seconds: float,
    seed: int = 0,
) -> ArrivalsReport:
    """Pictures of an eighth, a quarter, half and all of the grid's positions as steps, in turn.

    `bound` times the seconds alone is in time: of the longest picture for all, and of each picture for itself.
    """
    clock = Clock(subject.device)
    longest = subject.backbone.config.num_tokens
    kinds = tuple(max(1, longest // part) for part in PARTS)

    def make_requests(count: int) -> Sequence[SequenceRequest]:
        plans = [subject.with_steps(steps) for steps in kinds]
        return [
            replace(request, plan=plans[number % len(plans)]) for number, request in enumerate(subject.requests(count))
        ]

    engine = subject.engine(slots)
    run_to_end(engine, subject, make_requests(2))
    alone = {
        request.plan.steps: clock.median(lambda r=request: replay(engine, clock, [0.0], [r], CONTINUOUS), 3)
        for request in make_requests(len(kinds))
    }
    full = make_requests(max(1, slots // 2))
    capacity = len(full) / clock.median(lambda: replay(engine, clock, [0.0] * len(full), full, CONTINUOUS), 1)
    limit = bound * max(alone.values())
    requests = make_requests(num_images)
    rows = [
        _row(batching, load, load * capacity, limit, replay(engine, clock, times, requests, batching))
        for load in loads
        for times in [poisson_times(num_images, load * capacity, seed)]
        for batching in (STATIC, CONTINUOUS)
    ]
    peaks = [
        row
        for bounds in (
            Bounds(f"{bound:g} x the longest alone", lambda _: limit),
            Bounds(f"{bound:g} x itself alone", lambda request: bound * alone[request.plan.steps]),
        )
        for row in find_peaks(engine, clock, make_requests, bounds, capacity=capacity, seconds=seconds, seed=seed)
    ]
    told = tuple(alone[steps] for steps in kinds)
    setting = clock.setting(subject.dtype)
    return ArrivalsReport(subject.name, slots, num_images, kinds, told, capacity, bound, rows, peaks, setting)


def _row(batching: str, load: float, rate: float, bound: float, lives: Lives) -> ArrivalsRow:
    ages = list(lives.total.values())
    return ArrivalsRow(
        batching,
        load,
        rate,
        quantile(list(lives.first.values()), 0.5),
        *(quantile(ages, share) for share in (0.5, 0.95, 0.99)),
        goodput=sum(age <= bound for age in ages) / lives.end,
    )
