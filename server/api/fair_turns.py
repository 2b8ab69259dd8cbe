"""Turns of tenants at a fixed number of places: whoever waits longest without one comes next."""

import asyncio
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field

from oar_wire.tenant import Tenant


@dataclass
class _Turn:
    tenant: Tenant
    begins: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class FairTurns:
    """A tenant occupies at most its share of the places, and waiting tenants take turns. Belongs to one event loop."""

    def __init__(self, num_places: int) -> None:
        self._num_places = num_places
        self._waiting: OrderedDict[str, deque[_Turn]] = OrderedDict()
        self._running: Counter[str] = Counter()

    @property
    def num_waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def num_running(self) -> int:
        return self._running.total()

    def num_waiting_of(self, tenant: Tenant) -> int:
        return len(self._waiting.get(tenant.name, ()))

    def has_place(self, tenant: Tenant) -> bool:
        """Tells whether a place is free, and the tenant may have it."""
        return self.num_running < self._num_places and self._has_share(tenant)

    async def begin(self, tenant: Tenant) -> None:
        """Returns when one of the places is this caller's; `end` gives it back."""
        turn = _Turn(tenant)
        self._waiting.setdefault(tenant.name, deque()).append(turn)
        self._start_waiting()
        try:
            await turn.begins
        except asyncio.CancelledError:
            if turn.begins.done() and not turn.begins.cancelled():
                self.end(tenant)
            else:
                self._waiting[tenant.name].remove(turn)
                self._drop_if_empty(tenant.name)
            raise

    def end(self, tenant: Tenant) -> None:
        self._running[tenant.name] -= 1
        if not self._running[tenant.name]:
            del self._running[tenant.name]
        self._start_waiting()

    def _has_share(self, tenant: Tenant) -> bool:
        return self._running[tenant.name] < tenant.share_of(self._num_places)

    def _start_waiting(self) -> None:
        while self.num_running < self._num_places:
            turn = self._next()
            if turn is None:
                return
            self._running[turn.tenant.name] += 1
            turn.begins.set_result(None)

    def _next(self) -> _Turn | None:
        """Takes the oldest turn of the tenant that was served longest ago and has a free share."""
        for name, turns in self._waiting.items():
            if self._has_share(turns[0].tenant):
                turn = turns.popleft()
                self._waiting.move_to_end(name)
                self._drop_if_empty(name)
                return turn
        return None

    def _drop_if_empty(self, name: str) -> None:
        if not self._waiting[name]:
            del self._waiting[name]
