"""Pictures that arrive over time, put through the bare engine in one of three manners.

Time is the engine's own: the clock of its steps runs on while it works and jumps to the next arrival while it has
nothing to do. So the outcome does not depend on what else the machine does, as long as a step's time does not.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from oar_core.engine.engine import Engine
from oar_core.engine.events import PatchesDecoded, SequenceFinished
from oar_core.engine.sequence import SequenceRequest
from oar_lab.bench.clock import Clock

ONE, STATIC, CONTINUOUS = "one at a time", "static", "continuous"
MANNERS = (ONE, STATIC, CONTINUOUS)


@dataclass
class Lives:
    """Seconds from each picture's arrival to its first and last patch; and the time when the last one ended."""

    first: dict[str, float] = field(default_factory=dict[str, float])
    total: dict[str, float] = field(default_factory=dict[str, float])
    end: float = 0.0

    def num_late(self, bounds: dict[str, float]) -> int:
        return sum(age > bounds[name] for name, age in self.total.items())


def poisson_times(count: int, rate: float, seed: int) -> list[float]:
    """Seconds at which `count` pictures arrive, `rate` a second; all at once where that is infinite."""
    if math.isinf(rate):
        return [0.0] * count
    generator = random.Random(seed)
    return list(accumulate((generator.expovariate(rate) for _ in range(count - 1)), initial=0.0))


def replay(
    engine: Engine,
    clock: Clock,
    times: Sequence[float],
    requests: Sequence[SequenceRequest],
    manner: str,
    *,
    bounds: dict[str, float] | None = None,
    most_late: float = math.inf,
) -> Lives:
    """Pictures that arrive at `times`, in seconds of the engine's clock. A static batch is full or of all that wait
    when the batch before it has ended, and nothing joins it; each of its pictures is delivered when it is finished.

    Gives up once more than `most_late` took longer than their `bounds`: the engine is then empty as well.
    """
    arrived = {request.id: time for request, time in zip(requests, times)}
    coming, now, lives = list(zip(times, requests))[::-1], 0.0, Lives()
    while coming or engine.has_work:
        if not engine.has_work:
            now = max(now, coming[-1][0])
        if manner == CONTINUOUS or not engine.has_work:
            room = {ONE: 1, STATIC: engine.num_free_slots // 2, CONTINUOUS: len(coming)}[manner]
            while coming and coming[-1][0] <= now and room:
                engine.add(coming.pop()[1])
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
        if bounds is not None and lives.num_late(bounds) > most_late:
            _empty(engine, requests)
            break
    lives.end = now
    return lives


def _empty(engine: Engine, requests: Sequence[SequenceRequest]) -> None:
    for request in requests:
        engine.abort(request.id)
    engine.step()
