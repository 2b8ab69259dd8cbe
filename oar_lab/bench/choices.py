"""Checks whether the choice of number format and kernels is right at each start."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from oar_core.engine.calibration import Calibration, times_best
from oar_core.engine.contest import MARGIN
from oar_lab.bench.clock import Clock, Setting
from oar_lab.bench.table import table

DTYPES = (torch.float32, torch.bfloat16)


@dataclass(frozen=True)
class ChoiceRow:
    """One choice for a network, and how many starts made it."""

    network: str
    dtype: str
    packed_from: str
    starts: int
    times_best: float  # the seconds of its linear layers over those of the best choice that any start made

    @property
    def is_right(self) -> bool:
        """Tells whether no other choice is better by more than a choice has to gain."""
        return self.times_best <= math.exp(MARGIN)


@dataclass(frozen=True)
class ChoicesReport:
    rows: list[ChoiceRow]
    seconds: dict[str, float]  # CPU time of one measurement, on average, by network
    setting: Setting

    @property
    def right(self) -> dict[str, int]:
        """Number of starts that chose rightly, by network."""
        return {name: sum(r.starts for r in self.rows if r.network == name and r.is_right) for name in self.seconds}

    def table(self) -> str:
        headers = ("network", "dtype", "packed from", "starts", "times the best")
        choices = table(headers, ((r.network, r.dtype, r.packed_from, r.starts, r.times_best) for r in self.rows))
        counts = table(
            ("network", "starts that chose rightly", "seconds each"),
            ((name, count, self.seconds[name]) for name, count in self.right.items()),
        )
        return f"{choices}\n\n{counts}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"right": self.right}


def measure_choices(networks: Mapping[str, nn.Module], *, starts: int) -> ChoicesReport:
    """Measures anew each time; then all choices that were made in turn."""
    clock = Clock(torch.device("cpu"))
    rows: list[ChoiceRow] = []
    seconds: dict[str, float] = {}
    for name, network in networks.items():
        begun = clock.now()
        counts = Counter(
            (each.dtype, each.packing) for each in (Calibration.measure(network, DTYPES) for _ in range(starts))
        )
        seconds[name] = (clock.now() - begun) / starts
        ratios = times_best(network, [(getattr(torch, dtype), packing) for dtype, packing in counts])
        rows += [
            ChoiceRow(name, dtype, packing.in_words, count, ratio)
            for ((dtype, packing), count), ratio in zip(counts.items(), ratios)
        ]
    return ChoicesReport(rows, seconds, clock.setting(torch.float32))
