"""What a CPU is quickest with, by measurement: number format, and from how many rows on packed weights pay.

CPUs differ more than one would guess. One multiplies in bfloat16 twice as fast as in fp32, another a third slower; one
is twice as fast on packed weights with few rows, another half as fast. So a network's linear layers are timed, one of
each shape, as the engine would call them: on one thread by its CPU time, which other processes add nothing to.
"""

import copy
import hashlib
import platform
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from oar_core.engine.contest import decide
from oar_core.engine.kept import kept, machine, one_thread
from oar_core.nn.packed import NEVER, PackedLinear, Packing, can_pack

ROWS = (1, 2, 4, 8, 64)  # tokens of a step: of one picture, of a few, of many
PADDED_ROWS = 5
FORMAT = 2  # of the files

Clock = Callable[[], float]
Kernels = Sequence[tuple[Callable[[Tensor], Tensor], int, int]]  # a layer of each shape, its width, how many there are


@dataclass(frozen=True)
class Calibration:
    """What was chosen, and the milliseconds of all linear layers under it, for the fewest and the most of ROWS."""

    dtype: str
    least_packed_rows: int
    padded_rows: int
    few_rows_ms: float
    many_rows_ms: float

    @property
    def packing(self) -> Packing:
        return Packing(self.least_packed_rows, self.padded_rows)

    @classmethod
    @torch.inference_mode()
    def measure(cls, network: nn.Module, dtypes: Sequence[torch.dtype], clock: Clock = time.thread_time) -> Self:
        """The best of these for few and for many rows alike. The first of `dtypes` is left for a gain alone.

        Pictures of int8 differ from those of fp32, so it is asked for and never chosen: `dtypes` are floating.
        """
        with one_thread():
            choices = [_Choice(network, dtype, clock) for dtype in dtypes]
            winner = decide(lambda: [choice.seconds() for choice in choices]).winner if len(choices) > 1 else 0
            return cls(*choices[winner].facts())

    @classmethod
    def stored(cls, folder: Path, network: nn.Module, dtypes: Sequence[torch.dtype]) -> Self:
        """What the folder holds for such a network on this machine and build; else it is measured, and kept there."""
        return kept(folder / f"{_key(network, dtypes)}.json", cls, lambda: cls.measure(network, dtypes))


class _Choice:
    """One number format with the kernels that are the quickest for each number of rows."""

    def __init__(self, network: nn.Module, dtype: torch.dtype, clock: Clock) -> None:
        self._dtype, self._clock = dtype, clock
        layers = [
            (layer if layer.weight.dtype is dtype else copy.deepcopy(layer).to(dtype), count)
            for layer, count in _kinds(network)
        ]
        ways: list[Kernels] = [[(layer, layer.in_features, count) for layer, count in layers]]
        if layers and can_pack(layers[0][0]):
            for packing in (Packing(), Packing(padded_rows=PADDED_ROWS)):
                ways.append([(PackedLinear(layer, packing), layer.in_features, count) for layer, count in layers])
        winners = {rows: self._winner(ways, rows) for rows in ROWS}
        self.packing = _packing(winners)
        self._kernels = {rows: ways[self._way(rows)] for rows in ROWS}

    def _winner(self, ways: Sequence[Kernels], rows: int) -> int:
        fitting = ways if rows < PADDED_ROWS else ways[:2]
        for kernels in fitting:
            self._pass(kernels, rows)
        return decide(lambda: [self._pass(kernels, rows) for kernels in fitting]).winner

    def _way(self, rows: int) -> int:
        if rows < self.packing.least_rows:
            return 0
        return 2 if rows < self.packing.padded_rows else 1

    def _pass(self, kernels: Kernels, rows: int) -> float:
        """Seconds of all linear layers."""
        total = 0.0
        for kernel, width, count in kernels:
            x = torch.ones(rows, width, dtype=self._dtype)
            start = self._clock()
            kernel(x)
            total += count * (self._clock() - start)
        return total

    def seconds(self) -> float:
        """The geometric mean over ROWS: few and many rows count alike."""
        mean = 1.0
        for rows, kernels in self._kernels.items():
            mean *= max(self._pass(kernels, rows), 1e-9) ** (1 / len(ROWS))
        return mean

    def facts(self) -> tuple[str, int, int, float, float]:
        """The fields of a Calibration."""
        few, many = (
            round(1e3 * min(self._pass(self._kernels[rows], rows) for _ in range(3)), 4) for rows in (ROWS[0], ROWS[-1])
        )
        return _name(self._dtype), self.packing.least_rows, self.packing.padded_rows, few, many


def _packing(winners: dict[int, int]) -> Packing:
    """From each number of rows to the way that won it: 0 the weights as they are, 1 packed, 2 packed and padded."""
    least = NEVER
    for rows in reversed(ROWS):
        if not winners[rows]:
            break
        least = rows
    padded = [winners[rows] == 2 for rows in ROWS if max(2, least) <= rows < PADDED_ROWS]
    return Packing(least, PADDED_ROWS if padded and all(padded) else 1)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _key(network: nn.Module, dtypes: Sequence[torch.dtype]) -> str:
    """Of this machine's processor, this build and the shapes of the network's linear layers."""
    shapes = [(layer.out_features, layer.in_features, count) for layer, count in _kinds(network)]
    facts = (FORMAT, *machine(), shapes)
    digest = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    return f"{platform.machine()}-{digest}-{'-'.join(map(_name, dtypes))}"


def words(calibration: Calibration) -> str:
    """One line for logs and tables."""
    return " ".join(f"{name}={value}" for name, value in asdict(calibration).items())


def _kinds(network: nn.Module) -> list[tuple[nn.Linear, int]]:
    """A linear layer of each shape, and how many there are of it."""
    linears = [module for module in network.modules() if isinstance(module, nn.Linear)]
    counts = Counter(linear.weight.shape for linear in linears)
    first = {linear.weight.shape: linear for linear in reversed(linears)}
    return [(first[shape], count) for shape, count in counts.items()]
