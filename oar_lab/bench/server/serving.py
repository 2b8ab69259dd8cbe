"""A server under load against the engine that it runs: what the path around the engine costs."""

import asyncio
import math
import resource
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from oar_lab.bench.clock import Setting, quantile
from oar_lab.bench.replay import poisson_times
from oar_lab.bench.server.engine_alone import EngineAlone
from oar_lab.bench.server.load import COMPLETED, REFUSED, Load, LoadOutcome
from oar_lab.bench.table import table

WARM_UP = 4  # pictures
FIRST_PATCH_MARGIN = 0.02  # seconds beyond two steps
SHARES = (0.5, 0.95, 0.99)
CpuSeconds = Callable[[], dict[str, float]]


@dataclass(frozen=True)
class ServingRow:
    rate: float | None  # requests a second that were to arrive; None: all at once
    arriving: float  # that did
    completed: float  # a second
    first_patch: tuple[float | None, ...]  # seconds from arrival: p50, p95, p99
    latency: tuple[float | None, ...]
    goodput: float  # pictures a second that were finished within the bound
    refused: int
    errors: dict[str, int]
    cpu_seconds: dict[str, float]  # of each process, a completed picture

    @property
    def name(self) -> str:
        return "all at once" if self.rate is None else f"{self.rate:g}"


@dataclass(frozen=True)
class ServingReport:
    model: str
    url: str  # empty for a server of our own
    num_requests: int
    concurrency: int | None
    steps: tuple[int, ...]
    orders: tuple[str, ...]
    slots: int  # of the engine alone, and of a server of our own
    bound: float  # seconds
    engine: EngineAlone
    rows: list[ServingRow]
    setting: Setting

    @property
    def ratio(self) -> float:
        """Pictures a second through the server at its busiest, of those that the engine alone makes."""
        return max(row.completed for row in self.rows) / self.engine.images_per_second

    @property
    def cpu_ratio(self) -> float | None:
        """CPU time of a picture by the engine alone, of that by a worker at its busiest, in all of its threads. Other
        work on the machine sways it less than the rate."""
        least = min((row.cpu_seconds.get("worker", 0.0) for row in self.rows), default=0.0)
        return self.engine.cpu_seconds / least if least else None

    @property
    def first_patch_aim(self) -> float:
        """Two steps and a margin, in seconds."""
        return 2 * self.engine.step_seconds + FIRST_PATCH_MARGIN

    def table(self) -> str:
        return "\n\n".join((self._latencies(), self._cpu(), self._verdict()))

    def _latencies(self) -> str:
        headers = (
            *("rate", "arriving/s", "pictures/s", "first patch p50 s", "p95 s", "p99 s"),
            *("latency p50 s", "p95 s", "p99 s", "goodput/s", "refused", "errors"),
        )
        rows = (
            (r.name, r.arriving, r.completed, *r.first_patch, *r.latency, r.goodput, r.refused, sum(r.errors.values()))
            for r in self.rows
        )
        return table(headers, rows)

    def _cpu(self) -> str:
        """CPU milliseconds a picture: what the table has beside the wall time, which other work on a machine sways."""
        parts = sorted({part for row in self.rows for part in row.cpu_seconds})
        rows = ((row.name, *(1e3 * row.cpu_seconds[part] for part in parts), self._engine_cpu) for row in self.rows)
        return table(("rate", *(f"{part} cpu ms a picture" for part in parts), "engine alone"), rows)

    @property
    def _engine_cpu(self) -> float:
        return 1e3 * self.engine.cpu_seconds

    def _verdict(self) -> str:
        engine, first = self.engine.images_per_second, min(self.rows, key=lambda row: row.arriving).first_patch[0]
        lines = [f"The engine alone makes {engine:.2f} pictures/s; the server reaches {self.ratio:.3f} of that."]
        if self.cpu_ratio is not None:
            lines.append(f"By CPU time of its worker: {self.cpu_ratio:.3f}.")
        if first is not None:
            lines.append(
                f"First patch at the lowest rate (p50): {1e3 * first:.1f} ms; two steps and "
                f"{1e3 * FIRST_PATCH_MARGIN:.0f} ms are {1e3 * self.first_patch_aim:.1f} ms."
            )
        return " ".join((*lines, f"A picture is good within {self.bound:.2f} s."))

    def to_dict(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "ratio": self.ratio,
            "cpu_ratio": self.cpu_ratio,
            "first_patch_aim": self.first_patch_aim,
        }


def measure_serving(
    load: Load, rates: Sequence[float], *, bound: float, cpu_seconds: CpuSeconds, seed: int
) -> list[ServingRow]:
    """One row a rate, in turn, after a few pictures that do not count."""
    asyncio.run(Load(load.url, load.api_key, load.wanted[:WARM_UP]).put([0.0] * WARM_UP))
    rows: list[ServingRow] = []
    for rate in rates:
        before = _with_own(cpu_seconds())
        outcome = asyncio.run(load.put(poisson_times(len(load.wanted), rate, seed)))
        after = _with_own(cpu_seconds())
        cpu = {part: after[part] - seconds for part, seconds in before.items() if part in after}
        rows.append(_row(rate, len(load.wanted), outcome, bound, cpu))
    return rows


def _row(rate: float, count: int, outcome: LoadOutcome, bound: float, cpu: dict[str, float]) -> ServingRow:
    completed = outcome.ends[COMPLETED]
    return ServingRow(
        None if math.isinf(rate) else rate,
        arriving=count / (outcome.last_arrival or outcome.seconds),
        completed=completed / outcome.seconds,
        first_patch=_quantiles(outcome.first_patch),
        latency=_quantiles(outcome.total),
        goodput=sum(age <= bound for age in outcome.total) / outcome.seconds,
        refused=outcome.ends[REFUSED],
        errors={code: many for code, many in outcome.ends.items() if code not in {COMPLETED, REFUSED}},
        cpu_seconds={part: seconds / max(1, completed) for part, seconds in cpu.items()},
    )


def _quantiles(values: list[float]) -> tuple[float | None, ...]:
    return tuple(quantile(values, share) if values else None for share in SHARES)


def _with_own(cpu: dict[str, float]) -> dict[str, float]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {**cpu, "client": used.ru_utime + used.ru_stime}
