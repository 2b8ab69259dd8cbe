"""Whether the choice of number format and kernels is the same at each start."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from oar_core.engine.calibration import Calibration
from oar_lab.bench.clock import Clock, Setting
from oar_lab.bench.table import table

DTYPES = (torch.float32, torch.bfloat16)


@dataclass(frozen=True)
class ChoicesReport:
    starts: dict[str, list[Calibration]]  # by network
    seconds: dict[str, float]  # CPU time of one measurement, on average
    setting: Setting

    @property
    def alike(self) -> dict[str, int]:
        """How many starts made the commonest choice."""
        return {
            name: max(Counter((each.dtype, each.packing) for each in choices).values())
            for name, choices in self.starts.items()
        }

    def table(self) -> str:
        rows = (
            (name, start, each.dtype, each.packing.in_words, each.few_rows_ms, each.many_rows_ms)
            for name, choices in self.starts.items()
            for start, each in enumerate(choices, 1)
        )
        headers = ("network", "start", "dtype", "packed from", "few rows ms", "many rows ms")
        alike = table(
            ("network", "starts", "alike", "seconds each"),
            ((name, len(self.starts[name]), count, self.seconds[name]) for name, count in self.alike.items()),
        )
        return f"{table(headers, rows)}\n\n{alike}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"alike": self.alike}


def measure_choices(networks: Mapping[str, nn.Module], *, starts: int) -> ChoicesReport:
    """Measures anew each time."""
    clock = Clock(torch.device("cpu"))
    chosen: dict[str, list[Calibration]] = {name: [] for name in networks}
    seconds = dict.fromkeys(networks, 0.0)
    for _ in range(starts):
        for name, network in networks.items():
            begun = clock.now()
            chosen[name].append(Calibration.measure(network, DTYPES))
            seconds[name] += (clock.now() - begun) / starts
    return ChoicesReport(chosen, seconds, clock.setting(torch.float32))
