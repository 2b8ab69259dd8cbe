"""Which sequences run: decided anew before every step."""

import heapq
from bisect import insort

from oar_core.engine.cache_pool import CachePool
from oar_core.engine.sequence import Phase, Sequence


class Scheduler:
    """First come, first served within a priority; higher priorities first.

    Only the head of the queue is admitted. A pair that does not fit yet therefore holds later singles back, for at most
    as long as the running picture that is nearest to its end, and cannot be starved by them. Nothing that runs is ever
    preempted.
    """

    def __init__(self, pool: CachePool) -> None:
        self.running: list[Sequence] = []
        self.waiting: list[Sequence] = []
        self._pool = pool

    def add(self, sequence: Sequence) -> None:
        # Equal keys are inserted to the right: order of arrival.
        insort(self.waiting, sequence, key=lambda other: -other.priority)

    def admit(self) -> list[Sequence]:
        """Starts the sequences at the head of the queue for which there are slots."""
        admitted: list[Sequence] = []
        while self.waiting and self._pool.can_take(self.waiting[0].num_slots):
            sequence = self.waiting.pop(0)
            sequence.start(self._pool.take(sequence.num_slots))
            admitted.append(sequence)
        self.running += admitted
        return admitted

    def end(self, sequence: Sequence, phase: Phase) -> None:
        """Takes a sequence out, in a terminal phase, with its slots."""
        (self.waiting if sequence.phase is Phase.WAITING else self.running).remove(sequence)
        slots = sequence.end(phase)
        if slots is not None:
            self._pool.release(slots)

    def forecast(self) -> dict[str, int]:
        """After how many steps each sequence will be finished if nothing else is added and nothing aborted.

        Exact for fixed group sizes: lengths are known, so admission is simulated.
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
