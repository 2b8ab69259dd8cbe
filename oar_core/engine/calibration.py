"""The fastest settings of a CPU, by measurement: number format, and from how many rows on packed weights pay.

CPUs differ more than one would guess. One multiplies in bfloat16 twice as fast as in fp32, another a third slower; one
is twice as fast on packed weights with few rows, another half as fast. So a network's linear layers are timed, one of
each shape, as the engine would call them: on one thread by its CPU time, which other processes add nothing to.
"""

import copy
import hashlib
import math
import platform
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from oar_core.engine.contest import MOST_ROUNDS, decide
from oar_core.engine.measurements import machine, one_thread, read_or_measure
from oar_core.nn.packed import NEVER, PackedLinear, Packing, can_pack

ROWS = (1, 2, 4, 8, 64)  # tokens of a step: of one picture, of a few, of many
PADDED_ROWS = 5
FORMAT = 3  # of the files

Clock = Callable[[], float]
Kernels = Sequence[tuple[Callable[[Tensor], Tensor], int, int]]  # a layer of each shape, its width, how many there are


@dataclass(frozen=True)
class Calibration:
    """The choice, and the milliseconds of all linear layers under it, for the fewest and the most of ROWS."""

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
            formats = [_Format(network, dtype, clock) for dtype in dtypes]
            choices = [(each, each.best_packing()) for each in formats]
            winner = 0
            if len(choices) > 1:
                winner = decide(lambda: [each.seconds(packing) for each, packing in choices]).winner
            best, packing = choices[winner]
            return cls(*best.facts(packing))

    @classmethod
    def stored(cls, folder: Path, network: nn.Module, dtypes: Sequence[torch.dtype]) -> Self:
        """Reads the folder's choice for such a network on this machine and build; else measures it and keeps it
        there."""
        return read_or_measure(folder / f"{_key(network, dtypes)}.json", cls, lambda: cls.measure(network, dtypes))


def times_best(
    network: nn.Module, choices: Sequence[tuple[torch.dtype, Packing]], clock: Clock = time.thread_time
) -> list[float]:
    """The seconds of each choice over those of the best, in turn, by as many rounds as there may be: a check of what
    `Calibration.measure` chose at different starts."""
    with one_thread(), torch.inference_mode():
        formats = {dtype: _Format(network, dtype, clock) for dtype, _ in choices}
        passes = [(formats[dtype], packing) for dtype, packing in choices]
        ratios = decide(lambda: [each.seconds(packing) for each, packing in passes], MOST_ROUNDS).ratios
    return [ratio / min(ratios) for ratio in ratios]


class _Format:
    """One number format: a linear layer of each shape, in each of the ways to multiply by it."""

    def __init__(self, network: nn.Module, dtype: torch.dtype, clock: Clock) -> None:
        self._dtype, self._clock = dtype, clock
        layers = [
            (layer if layer.weight.dtype is dtype else copy.deepcopy(layer).to(dtype), count)
            for layer, count in _kinds(network)
        ]
        self._ways: list[Kernels] = [[(layer, layer.in_features, count) for layer, count in layers]]
        if layers and can_pack(layers[0][0]):
            for packing in (Packing(), Packing(padded_rows=PADDED_ROWS)):
                self._ways.append([(PackedLinear(layer, packing), layer.in_features, count) for layer, count in layers])

    def best_packing(self) -> Packing:
        least = _least_packed({rows: self._winner(rows) for rows in ROWS})
        few = [rows for rows in ROWS if max(2, least) <= rows < PADDED_ROWS]
        # Of all few rows together: a contest of each would hang on the one where it matters least.
        is_padded = few and decide(lambda: [self._mean(kernels, few) for kernels in self._ways[1:]]).winner
        return Packing(least, PADDED_ROWS if is_padded else 1)

    def _winner(self, rows: int) -> int:
        fitting = self._ways if rows < PADDED_ROWS else self._ways[:2]
        for kernels in fitting:
            self._pass(kernels, rows)
        return decide(lambda: [self._pass(kernels, rows) for kernels in fitting]).winner

    def _pass(self, kernels: Kernels, rows: int) -> float:
        """Seconds of all linear layers."""
        total = 0.0
        for kernel, width, count in kernels:
            x = torch.ones(rows, width, dtype=self._dtype)
            start = self._clock()
            kernel(x)
            total += count * (self._clock() - start)
        return total

    def seconds(self, packing: Packing) -> float:
        """The geometric mean over ROWS: few and many rows count alike."""
        return math.prod(self._mean(self._kernels(packing, rows), (rows,)) ** (1 / len(ROWS)) for rows in ROWS)

    def _mean(self, kernels: Kernels, all_rows: Sequence[int]) -> float:
        return math.prod(max(self._pass(kernels, rows), 1e-9) ** (1 / len(all_rows)) for rows in all_rows)

    def facts(self, packing: Packing) -> tuple[str, int, int, float, float]:
        """The fields of a Calibration."""
        few, many = (
            round(1e3 * min(self._pass(self._kernels(packing, rows), rows) for _ in range(3)), 4)
            for rows in (ROWS[0], ROWS[-1])
        )
        return _name(self._dtype), packing.least_rows, packing.padded_rows, few, many

    def _kernels(self, packing: Packing, rows: int) -> Kernels:
        if rows < packing.least_rows:
            return self._ways[0]
        return self._ways[2 if rows < packing.padded_rows else 1]


def _least_packed(winners: dict[int, int]) -> int:
    """The winner of each number of rows: 0 the weights as they are, 1 packed, 2 packed and padded."""
    least = NEVER
    for rows in reversed(ROWS):
        if not winners[rows]:
            break
        least = rows
    return least


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _key(network: nn.Module, dtypes: Sequence[torch.dtype]) -> str:
    """A key of this machine's processor, this build and the shapes of the network's linear layers."""
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
