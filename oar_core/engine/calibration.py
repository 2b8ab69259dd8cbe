"""What a CPU is quickest with, by measurement: number format, threads, and from how many rows on packed weights pay.

CPUs differ more than one would guess. One multiplies in bfloat16 twice as fast as in fp32, another a third slower; one
is twice as fast on packed weights with few rows, another half as fast. So a network's linear layers are timed, one of
each shape, as the engine would call them.
"""

import copy
import json
import logging
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from oar_core.nn.packed import NEVER, PackedLinear, can_pack

logger = logging.getLogger(__name__)

ROWS = (2, 8, 64)  # tokens of a step: of one guided picture, of a few, of many
ROUNDS = 3  # of which the quickest counts: what else the machine does only adds
ROUND_SECONDS = 3e-4  # at least one call each
MEASURE_SECONDS = 1.0  # after which no other choice is looked at


@dataclass(frozen=True)
class Calibration:
    """What was chosen, and the milliseconds of all linear layers under it, for the fewest and the most of ROWS."""

    dtype: str
    threads: int
    least_packed_rows: int
    few_rows_ms: float
    many_rows_ms: float

    @classmethod
    def measure(cls, network: nn.Module, dtypes: Sequence[torch.dtype], threads: Sequence[int]) -> Self:
        """The best of these for few and for many rows alike; the number of threads is left as it was.

        More threads are looked at last; what is not measured within MEASURE_SECONDS is passed over. Pictures of int8
        differ from those of fp32, so it is asked for and never chosen: `dtypes` are floating.
        """
        before, choices = torch.get_num_threads(), list[Self]()
        deadline = time.perf_counter() + MEASURE_SECONDS
        try:
            for count in threads:
                for dtype in dtypes:
                    choice = cls._of(network, dtype, count, deadline if choices else float("inf"))
                    choices += [] if choice is None else [choice]
        finally:
            torch.set_num_threads(before)
        few, many = min(c.few_rows_ms for c in choices), min(c.many_rows_ms for c in choices)
        return min(choices, key=lambda c: c.few_rows_ms / few + c.many_rows_ms / many)

    @classmethod
    def stored(cls, folder: Path, network: nn.Module, dtypes: Sequence[torch.dtype], threads: Sequence[int]) -> Self:
        """What the folder holds for such a network on this machine and build; else it is measured, and kept there.

        Of several processes the first one decides, so that they compute alike. Where the folder cannot be written each
        process measures for itself.
        """
        names = [str(dtype).removeprefix("torch.") for dtype in dtypes]
        shapes = "-".join(f"{layer.out_features}x{layer.in_features}" for layer, _ in _kinds(network))
        build = f"{torch.__version__}-{platform.machine()}-{torch.backends.cpu.get_cpu_capability()}"
        path = folder / f"{build}-{shapes}-{'-'.join(names)}-{'-'.join(map(str, threads))}.json".replace(" ", "_")
        if not path.exists():
            measured = cls.measure(network, dtypes, threads)
            try:
                _keep(path, json.dumps(asdict(measured)))
            except OSError as error:
                logger.warning(
                    "the calibration is not kept: %s cannot be written (%s)", folder, error.strerror or error
                )
                return measured
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    @classmethod
    @torch.inference_mode()
    def _of(cls, network: nn.Module, dtype: torch.dtype, threads: int, deadline: float) -> Self | None:
        """None where the deadline passes meanwhile."""
        torch.set_num_threads(threads)
        plain, packed = ([0.0] * len(ROWS) for _ in range(2))
        for linear, count in _kinds(network):
            if time.perf_counter() > deadline:
                return None
            layer = linear if linear.weight.dtype is dtype else copy.deepcopy(linear).to(dtype)
            kernels: list[tuple[list[float], Callable[[Tensor], Tensor]]] = [(plain, layer)]
            if can_pack(layer):
                kernels.append((packed, PackedLinear(layer)))
            for times, kernel in kernels:
                for index, rows in enumerate(ROWS):
                    times[index] += count * _seconds(kernel, torch.ones(rows, layer.in_features, dtype=dtype))
        least = _least_packed(plain, packed)
        best = [packed[index] if rows >= least else plain[index] for index, rows in enumerate(ROWS)]
        return cls(str(dtype).removeprefix("torch."), threads, least, round(1e3 * best[0], 4), round(1e3 * best[-1], 4))


def _keep(path: Path, text: str) -> None:
    """Whole or not at all; a file that is there meanwhile stays. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    with suppress(FileExistsError):
        os.link(draft, path)
    draft.unlink()


def words(calibration: Calibration) -> str:
    """One line for logs and tables."""
    return " ".join(f"{name}={value}" for name, value in asdict(calibration).items())


def _kinds(network: nn.Module) -> list[tuple[nn.Linear, int]]:
    """A linear layer of each shape, and how many there are of it."""
    linears = [module for module in network.modules() if isinstance(module, nn.Linear)]
    counts = Counter(linear.weight.shape for linear in linears)
    first = {linear.weight.shape: linear for linear in reversed(linears)}
    return [(first[shape], count) for shape, count in counts.items()]


def _seconds(kernel: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Of one call."""
    kernel(x)
    best = float("inf")
    for _ in range(ROUNDS):
        calls, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < ROUND_SECONDS or not calls:
            kernel(x)
            calls += 1
        best = min(best, elapsed / calls)
    return best


def _least_packed(plain: Sequence[float], packed: Sequence[float]) -> int:
    """From which of ROWS on packed weights are the quicker ones; all 0 stands for a build that has none."""
    least = NEVER
    for rows, usual, laid_out in reversed(list(zip(ROWS, plain, packed))):
        if not 0.0 < laid_out < usual:
            break
        least = rows
    return 1 if least == ROWS[0] else least
