"""The highest rate of arrivals at which nearly all pictures are finished in time, by bisection."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from oar_core.engine.engine import Engine
from oar_core.engine.sequence import SequenceRequest
from oar_lab.bench.clock import Clock
from oar_lab.bench.replay import MANNERS, ONE, STATIC, poisson_times, replay

IN_TIME = 0.95
FEWEST = 40  # pictures: two may be late
LEAST_SHARE, MOST_SHARE = 0.03, 1.5  # of the capacity: where to look
HALVINGS = 6  # of the interval's logarithm: what is found is 6 % too low at most


@dataclass(frozen=True)
class PeakRow:
    bound: str  # which pictures count as in time
    batching: str
    rate: float  # pictures a second, at the 95th percentile within the bound; 0 where none was found
    to_static: float  # the rate, of the static batch's
    to_one: float


@dataclass(frozen=True)
class Bound:
    """`seconds` is how long a picture may take; it may depend on the picture."""

    name: str
    seconds: Callable[[SequenceRequest], float]


def find_peaks(
    engine: Engine,
    clock: Clock,
    make_requests: Callable[[int], Sequence[SequenceRequest]],
    bound: Bound,
    *,
    capacity: float,
    seconds: float,
    seed: int,
) -> list[PeakRow]:
    """One row a manner of batching. At each rate, pictures arrive for `seconds`; `make_requests` makes that many."""

    def is_kept(manner: str, rate: float) -> bool:
        requests = make_requests(max(FEWEST, math.ceil(rate * seconds)))
        allowed = {request.id: bound.seconds(request) for request in requests}
        most_late = (1 - IN_TIME) * len(requests)
        times = poisson_times(len(requests), rate, seed)
        lives = replay(engine, clock, times, requests, manner, bounds=allowed, most_late=most_late)
        return lives.num_late(allowed) <= most_late

    peaks = {manner: _highest(lambda rate, m=manner: is_kept(m, rate), capacity) for manner in MANNERS}
    return [
        PeakRow(bound.name, manner, rate, _ratio(rate, peaks[STATIC]), _ratio(rate, peaks[ONE]))
        for manner, rate in peaks.items()
    ]


def _highest(is_kept: Callable[[float], bool], capacity: float) -> float:
    low, high = LEAST_SHARE * capacity, MOST_SHARE * capacity
    found = 0.0
    for _ in range(HALVINGS):
        middle = math.sqrt(low * high)
        if is_kept(middle):
            low = found = middle
        else:
            high = middle
    return found


def _ratio(rate: float, other: float) -> float:
    return rate / other if other else math.nan
