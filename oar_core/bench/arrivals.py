"""Static against continuous batching under the same open-loop load: Poisson arrivals into the bare engine.

Time is the engine's own: the clock of its steps runs on while it works and jumps to the next arrival while it has
nothing to do. So the outcome does not depend on what else the machine does, as long as a step's time does not.
"""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from oar_core.bench.batching import run_to_end
from oar_core.bench.clock import Clock, Setting, quantile
from oar_core.bench.subject import Subject
from oar_core.bench.table import table
from oar_core.engine.engine import Engine
from oar_core.engine.events import PatchesDecoded, SequenceFinished
from oar_core.engine.sequence import SequenceRequest

STATIC, CONTINUOUS = "static", "continuous"


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
    capacity: float  # pictures a second, full batches one after another
    bound: float  # seconds
    rows: list[ArrivalsRow]
    setting: Setting

    def table(self) -> str:
        headers = ("batching", "load", "arriving/s", "first patch p50 s", "p50 s", "p95 s", "p99 s", "goodput/s")
        rows = ((r.batching, r.load, r.rate, r.first_patch_p50, r.p50, r.p95, r.p99, r.goodput) for r in self.rows)
        text = f"Capacity {self.capacity:.2f} pictures/s; a picture is good within {self.bound:.2f} s."
        return f"{table(headers, rows)}\n\n{text}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure_arrivals(
    subject: Subject, *, slots: int, num_images: int, loads: tuple[float, ...], bound: float | None, seed: int = 0
) -> ArrivalsReport:
    """Pictures of a quarter, half and all of the model's steps in turn. `bound` None is five times the time of one."""
    clock = Clock(subject.device)
    steps = subject.plan.steps or subject.backbone.config.num_tokens
    kinds = tuple(max(1, steps * part // 4) for part in (1, 2, 4))
    requests = [
        replace(request, plan=subject.with_steps(kinds[number % len(kinds)]))
        for number, request in enumerate(subject.requests(num_images))
    ]
    engine = subject.engine(slots)
    full = max(1, slots // 2)
    run_to_end(engine, subject, requests[:2])
    alone = clock.seconds(lambda: _follow(engine, clock, [0.0], [subject.requests(1)[0]], CONTINUOUS))
    capacity = full / clock.median(lambda: _follow(engine, clock, [0.0] * full, requests[:full], CONTINUOUS), 1)
    bound = bound or 5 * alone
    rows: list[ArrivalsRow] = []
    for load in loads:
        generator = random.Random(seed)
        times = [0.0]
        while len(times) < num_images:
            times.append(times[-1] + generator.expovariate(load * capacity))
        rows += [
            _row(batching, load, load * capacity, bound, _follow(engine, clock, times, requests, batching))
            for batching in (STATIC, CONTINUOUS)
        ]
    return ArrivalsReport(subject.name, slots, num_images, kinds, capacity, bound, rows, clock.setting(subject.dtype))


@dataclass
class _Lives:
    """By picture: seconds from its arrival to its first patch and to its end; and when the last one ended."""

    first: dict[str, float]
    total: dict[str, float]
    end: float = 0.0


def _follow(
    engine: Engine, clock: Clock, times: Sequence[float], requests: Sequence[SequenceRequest], batching: str
) -> _Lives:
    """Pictures that arrive at `times`, in seconds of the engine's clock. A static batch is full or of all that wait
    when the batch before it has ended, and nothing joins it."""
    arrived = {request.id: time for request, time in zip(requests, times)}
    coming, now, lives = list(zip(times, requests)), 0.0, _Lives({}, {})
    while coming or engine.has_work:
        if not engine.has_work:
            now = max(now, coming[0][0])
        room = engine.num_free_slots // 2 if batching == STATIC else len(coming)
        if batching == CONTINUOUS or not engine.has_work:
            while coming and coming[0][0] <= now and room:
                engine.add(coming.pop(0)[1])
                room -= 1
        start = clock.now()
        events = engine.step()
        now += clock.now() - start
        for event in events:
            age = now - arrived[event.sequence_id]
            if isinstance(event, PatchesDecoded):
                lives.first.setdefault(event.sequence_id, age)
            elif isinstance(event, SequenceFinished):
                lives.total[event.sequence_id] = age
    lives.end = now
    return lives


def _row(batching: str, load: float, rate: float, bound: float, lives: _Lives) -> ArrivalsRow:
    ages = list(lives.total.values())
    return ArrivalsRow(
        batching,
        load,
        rate,
        quantile(list(lives.first.values()), 0.5),
        *(quantile(ages, share) for share in (0.5, 0.95, 0.99)),
        goodput=sum(age <= bound for age in ages) / lives.end,
    )
