"""Chooses the sequences that run, and how much of their prefills, before every step."""

import heapq
import math
from bisect import insort
from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain
from typing import Any

from oar_core.engine.cache_pool import CachePool
from oar_core.engine.sequence import Phase
from oar_core.engine.sequence import Sequence as EngineSequence

Sequence = EngineSequence[Any]


class Waiting:
    """The queue: higher priorities first, first come first served within one. All operations take constant time."""

    def __init__(self) -> None:
        self._lines: dict[int, OrderedDict[str, Sequence]] = {}
        self._priorities: list[int] = []  # ascending, of the lines that are there

    def __len__(self) -> int:
        return sum(len(line) for line in self._lines.values())

    def __iter__(self) -> Iterator[Sequence]:
        return chain.from_iterable(self._lines[priority].values() for priority in reversed(self._priorities))

    @property
    def head(self) -> Sequence | None:
        return next(iter(self), None)

    def add(self, sequence: Sequence) -> None:
        if sequence.priority not in self._lines:
            self._lines[sequence.priority] = OrderedDict()
            insort(self._priorities, sequence.priority)
        self._lines[sequence.priority][sequence.id] = sequence

    def remove(self, sequence: Sequence) -> None:
        line = self._lines[sequence.priority]
        del line[sequence.id]
        if not line:
            del self._lines[sequence.priority]
            self._priorities.remove(sequence.priority)


class Scheduler:
    """First come, first served within a priority; higher priorities first.

    Only the head of the queue is admitted. A pair that does not fit yet therefore holds later singles back, for at most
    as long as the running picture that is nearest to its end, and cannot be starved by them. Nothing that runs is ever
    preempted.

    A step prefills at most `max_prefill` tokens, conditions and known tokens together: what runs does not wait longer
    for those that begin. A longer prefill is done in chunks; who runs is served before who waits. Each step admits one
    sequence that has slots, however long its condition is, as long as no chunk has taken the whole step.
    """

    def __init__(self, pool: CachePool, max_prefill: float = math.inf) -> None:
        self.running: list[Sequence] = []
        self.waiting = Waiting()
        self._pool = pool
        self._max_prefill = max_prefill

    def add(self, sequence: Sequence) -> None:
        self.waiting.add(sequence)

    def admit(self) -> list[Sequence]:
        """Starts the sequences at the head of the queue for which there are slots, and gives out chunks to all."""
        left = self._max_prefill
        for sequence in self.running:
            left -= sequence.take_chunk(left)
        admitted: list[Sequence] = []
        while left > 0 and (head := self.waiting.head) is not None and self._pool.can_take(head.num_slots):
            self.waiting.remove(head)
            head.start(self._pool.take(head.num_slots))
            left -= len(head.request.condition_ids)
            left -= head.take_chunk(max(0, left))
            admitted.append(head)
        self.running += admitted
        return admitted

    def end(self, sequence: Sequence, phase: Phase) -> None:
        """Takes a sequence out, in a terminal phase, with its slots."""
        if sequence.phase is Phase.WAITING:
            self.waiting.remove(sequence)
        else:
            self.running.remove(sequence)
        slots = sequence.end(phase)
        if slots is not None:
            self._pool.release(slots)

    def forecast(self) -> dict[str, int]:
        """After how many steps each sequence will be finished if nothing else is added and nothing aborted.

        Exact for fixed group sizes: lengths are known, so admission is simulated. Steps by which a long prefill, or
        many at once, delay a picture come on top.
        """
        ends = {sequence.id: _steps_left(sequence) for sequence in self.running}
        holders = [(ends[sequence.id], sequence.num_slots) for sequence in self.running]
        heapq.heapify(holders)
        clock, free = 0, self._pool.num_free
        for sequence in self.waiting:
            while free < sequence.num_slots:
                clock, released = heapq.heappop(holders)
                free += released
            free -= sequence.num_slots
            ends[sequence.id] = clock + _steps_left(sequence)
            heapq.heappush(holders, (ends[sequence.id], sequence.num_slots))
        return ends


def _steps_left(sequence: Sequence) -> int:
    """A picture without anything to decode still passes through one step."""
    return max(1, sequence.progress.num_steps_left)
