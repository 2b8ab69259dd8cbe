"""The number of threads for torch on a CPU that it may have to share.

All threads of a kernel wait for the last one. Where one of them has to wait for a core, which other work holds, all do,
at each of the hundreds of kernels of a step: two threads may then take ten times as long as one.
"""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

from oar_core.engine.contest import decide

logger = logging.getLogger(__name__)

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
ROWS, WIDTH, LAYERS = 64, 512, 2  # of the work that is timed: a few kernels of a third of a millisecond
LEAST_ROUNDS, MOST_ROUNDS = 4, 8
LEAST_SECONDS = 5.0  # between two looks
MOST_SHARE = 0.02  # of the time that looks may take


def usable_cores() -> int:
    """Cores that this process may run on: those that it is bound to, at most what its control group gives it."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CPU_QUOTA.read_text(encoding="utf-8").split()
        return max(1, min(bound, int(quota) // int(period)))
    except (OSError, ValueError):  # no such group, or "max"
        return bound


class ThreadGuard:
    """Takes torch's threads back to one while one is quicker, and gives them again. For the thread that computes."""

    def __init__(
        self,
        threads: int,
        *,
        seconds: Callable[[int], float] | None = None,
        now: Callable[[], float] = time.monotonic,
        set_threads: Callable[[int], None] = torch.set_num_threads,
    ) -> None:
        """`threads` are those that are wanted. `seconds` of some work on so many threads: measured unless given."""
        self.threads = threads
        self._wanted = threads
        self._seconds, self._now, self._set_threads = seconds or _Work().seconds, now, set_threads
        self._next_look = now()

    def look(self) -> None:
        """Measures if it is time to, and sets the number of threads."""
        start = self._now()
        if self._wanted == 1 or start < self._next_look:
            return
        # What is there now comes first: it is left for a gain alone.
        counts = (self.threads, 1 if self.threads != 1 else self._wanted)
        outcome = decide(lambda: [self._measured(count) for count in counts], LEAST_ROUNDS, MOST_ROUNDS)
        self._take(counts[outcome.winner], outcome.ratios[1])
        end = self._now()
        self._next_look = end + max(LEAST_SECONDS, (end - start) / MOST_SHARE)

    def _measured(self, threads: int) -> float:
        self._set_threads(threads)
        return self._seconds(threads)

    def _take(self, threads: int, ratio: float) -> None:
        self._set_threads(threads)
        if threads != self.threads:
            text = "torch threads: %d in place of %d, %.2f of the time, with what else this machine does now"
            logger.warning(text, threads, self.threads, ratio)
        self.threads = threads


class _Work:
    """Products such as those of a step."""

    def __init__(self) -> None:
        self._x, self._weight = torch.ones(ROWS, WIDTH), torch.ones(WIDTH, WIDTH)

    @torch.inference_mode()
    def seconds(self, threads: int) -> float:  # noqa: ARG002 - they are set
        start = time.perf_counter()
        for _ in range(LAYERS):
            torch.mm(self._x, self._weight)
        return time.perf_counter() - start
