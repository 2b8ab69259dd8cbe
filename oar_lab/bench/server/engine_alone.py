"""The engine without a server, on the requests that a server is asked for."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Self

from oar_core.engine.sequence import SequenceRequest
from oar_lab.bench.batching import run_to_end
from oar_lab.bench.server.traffic import Wish
from oar_lab.bench.subject import Subject


@dataclass(frozen=True)
class EngineAlone:
    """Speeds in wall time, except `cpu_seconds`; a single picture is of the usual request."""

    images_per_second: float  # all at once, from requests to pixels
    cpu_seconds: float  # of one of these
    picture_seconds: float  # of one that has the engine to itself
    step_seconds: float  # of that one, its prefill included

    def mean(self, other: Self) -> Self:
        """Mean of two runs: a shared machine is not equally fast at every moment."""
        pairs = {name: (value, getattr(other, name)) for name, value in asdict(self).items()}
        return type(self)(**{name: sum(pair) / 2 for name, pair in pairs.items()})


def measure_engine(subject: Subject, wanted: Sequence[Wish], slots: int) -> EngineAlone:
    """After one picture that does not count."""
    engine = subject.engine(slots)
    requests = [_request(subject, number, wish) for number, wish in enumerate(wanted)]
    longest = max(requests, key=lambda request: request.plan.steps or 0)
    run_to_end(engine, subject, [longest])
    start = time.perf_counter()
    run_to_end(engine, subject, [longest])
    alone = time.perf_counter() - start
    start, cpu = time.perf_counter(), time.process_time()
    run_to_end(engine, subject, requests)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    steps = longest.plan.steps or subject.backbone.spec.num_tokens
    return EngineAlone(len(requests) / seconds, cpu / len(requests), alone, alone / steps)


def _request(subject: Subject, number: int, wish: Wish) -> SequenceRequest:
    (request,) = subject.requests(1, replace(subject.plan, order=wish.order, steps=wish.steps), first=number)
    return replace(request, seed=wish.seed)
