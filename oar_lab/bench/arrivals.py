"""Batching in three manners under the same open-loop load: Poisson arrivals into the bare engine."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from oar_core.engine.sequence import SequenceRequest
from oar_lab.bench.batching import run_to_end
from oar_lab.bench.clock import Clock, Setting, quantile
from oar_lab.bench.peak import Bound, PeakRow, find_peaks
from oar_lab.bench.replay import CONTINUOUS, STATIC, Lives, poisson_times, replay
from oar_lab.bench.subject import Subject
from oar_lab.bench.table import BenchReport, table

PARTS = (8, 4, 2, 1)  # of the greatest number of steps
NUM_ALONE = 7  # runs of a picture alone: every bound is a multiple of their median


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
class ArrivalsReport(BenchReport):
    model: str
    slots: int
    num_images: int
    steps: tuple[int, ...]
    alone: tuple[float, ...]  # seconds of a picture that has the engine to itself, for each of `steps`
    capacity: float  # pictures a second, full batches one after another
    bounds: tuple[float, ...]  # times the seconds alone, rising
    rows: list[ArrivalsRow]
    peaks: list[PeakRow]
    setting: Setting

    def table(self) -> str:
        headers = ("batching", "load", "arriving/s", "first patch p50 s", "p50 s", "p95 s", "p99 s", "goodput/s")
        rows = ((r.batching, r.load, r.rate, r.first_patch_p50, r.p50, r.p95, r.p99, r.goodput) for r in self.rows)
        peaks = ((r.bound, r.batching, r.rate, r.to_static, r.to_one) for r in self.peaks)
        lengths = ", ".join(f"{steps} steps {1e3 * alone:.0f} ms" for steps, alone in zip(self.steps, self.alone))
        text = f"Capacity {self.capacity:.2f} pictures/s. Alone: {lengths}. Goodput is for the loosest bound."
        return "\n\n".join(
            (
                *([table(headers, rows)] if self.rows else ()),
                table(("p95 within", "batching", "most arriving/s", "to static", "to one at a time"), peaks),
                text,
            )
        )


def measure_arrivals(
    subject: Subject,
    *,
    slots: int,
    num_images: int,
    loads: tuple[float, ...],
    bounds: tuple[float, ...],
    seconds: float,
    seed: int = 0,
) -> ArrivalsReport:
    """Pictures of an eighth, a quarter, half and all of the grid's positions as steps, in turn.

    Peaks are found within each of `bounds` times the seconds of the longest picture alone, and within the loosest of
    them times what each picture takes alone itself.
    """
    clock = Clock(subject.device)
    longest = subject.backbone.spec.num_tokens
    kinds = tuple(max(1, longest // part) for part in PARTS)

    def make_requests(count: int) -> Sequence[SequenceRequest]:
        plans = [subject.with_steps(steps) for steps in kinds]
        return [
            replace(request, plan=plans[number % len(plans)]) for number, request in enumerate(subject.requests(count))
        ]

    engine = subject.engine(slots)
    run_to_end(engine, subject, make_requests(2))
    alone = {
        request.plan.steps: clock.median(lambda r=request: replay(engine, clock, [0.0], [r], CONTINUOUS), NUM_ALONE)
        for request in make_requests(len(kinds))
    }
    full = make_requests(max(1, slots // 2))
    capacity = len(full) / clock.median(lambda: replay(engine, clock, [0.0] * len(full), full, CONTINUOUS), 1)
    bounds = tuple(sorted(bounds))
    limit = bounds[-1] * max(alone.values())
    requests = make_requests(num_images)
    rows = [
        _row(batching, load, load * capacity, limit, replay(engine, clock, times, requests, batching))
        for load in loads
        for times in [poisson_times(num_images, load * capacity, seed)]
        for batching in (STATIC, CONTINUOUS)
    ]
    peaks = [
        row
        for bound in _bounds(bounds, alone)
        for row in find_peaks(engine, clock, make_requests, bound, capacity=capacity, seconds=seconds, seed=seed)
    ]
    told = tuple(alone[steps] for steps in kinds)
    setting = clock.setting(subject.dtype)
    return ArrivalsReport(subject.name, slots, num_images, kinds, told, capacity, bounds, rows, peaks, setting)


def _bounds(times: tuple[float, ...], alone: dict[int | None, float]) -> list[Bound]:
    """`alone` are the seconds of a picture by its number of steps."""
    longest = max(alone.values())
    return [
        *(Bound(f"{factor:g} x the longest alone", lambda _, limit=factor * longest: limit) for factor in times),
        Bound(f"{times[-1]:g} x itself alone", lambda request: times[-1] * alone[request.plan.steps]),
    ]


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
