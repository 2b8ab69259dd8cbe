"""Clocks of a benchmark, and what it ran on."""

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Setting:
    """The machine and build of a measurement."""

    torch: str
    device: str
    dtype: str
    threads: int
    machine: str
    clock: str


class Clock:
    """Seconds of work: CPU time where one thread works, so that other processes do not count; else wall time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.is_cpu_time = device.type == "cpu" and torch.get_num_threads() == 1

    @property
    def name(self) -> str:
        return "cpu" if self.is_cpu_time else "wall"

    def now(self) -> float:
        if self.is_cpu_time:
            return time.thread_time()
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def seconds(self, work: Callable[[], object]) -> float:
        start = self.now()
        work()
        return self.now() - start

    def median(self, work: Callable[[], object], repeats: int) -> float:
        """After one run that does not count."""
        return self.medians([work], repeats)[0]

    def medians(self, works: Sequence[Callable[[], object]], repeats: int) -> list[float]:
        """Median of each call, as `rounds` measures them."""
        return [statistics.median(seconds) for seconds in zip(*self.rounds(works, repeats), strict=True)]

    def rounds(self, works: Sequence[Callable[[], object]], repeats: int) -> list[list[float]]:
        """The seconds of each in every round, after a round that does not count. They take turns, so that a slow minute
        of the machine falls on all of them alike."""
        for work in works:
            work()
        return self.turns(works, repeats)

    def turns(self, works: Sequence[Callable[[], object]], repeats: int) -> list[list[float]]:
        """The seconds of each in every round. What is slow once is to be done before."""
        return [[self.seconds(work) for work in works] for _ in range(repeats)]

    def least(self, work: Callable[[], object], repeats: int) -> float:
        """The least time of a call: everything that disturbs a run makes it slower."""
        work()
        return min(self.seconds(work) for _ in range(repeats))

    def setting(self, dtype: torch.dtype) -> Setting:
        return Setting(
            torch=torch.__version__,
            device=str(self._device),
            dtype=str(dtype).removeprefix("torch."),
            threads=torch.get_num_threads(),
            machine=platform.processor() or platform.machine(),
            clock=self.name,
        )


def quantile(values: list[float], share: float) -> float:
    """The least value that at least `share` of the values do not exceed."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, max(0, -(-int(share * 1000) * len(ranked) // 1000) - 1))]
