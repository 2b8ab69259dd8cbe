"""The cache's slots: which are free. Every picture has a known length, so a slot is all that one needs."""

import heapq

from oar_core.sampling.decode import Slots


class CachePool:
    """Hands out the lowest free slots first: those in use stay together, and neighbours are read without a copy."""

    def __init__(self, num_slots: int) -> None:
        self.num_slots = num_slots
        self._free = list(range(num_slots))
        self._used: set[int] = set()

    @property
    def num_reached(self) -> int:
        """Number of slots, from the first, that include all in use."""
        return max(self._used, default=-1) + 1

    @property
    def num_free(self) -> int:
        return len(self._free)

    def can_take(self, count: int) -> bool:
        return count <= len(self._free)

    def take(self, count: int) -> Slots:
        """One slot, or a pair for guidance, all or nothing."""
        assert count in (1, 2), f"a sequence takes 1 or 2 slots, not {count}"
        assert self.can_take(count), f"{count} slots wanted, {self.num_free} free"
        slots = Slots(*(heapq.heappop(self._free) for _ in range(count)))
        self._used.update(slots.all)
        return slots

    def release(self, slots: Slots) -> None:
        for slot in slots.all:
            assert slot in self._used, f"slot {slot} is released and was not in use"
            self._used.remove(slot)
            heapq.heappush(self._free, slot)
