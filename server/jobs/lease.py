"""Tells whether whoever holds a lease is alive, judged by the reader's own monotonic clock.

A holder renews by raising a number. A reader notes what it has read and how long that has stood still by its own
monotonic clock; after a whole lease the holder counts as dead. No clock of Redis is asked, so one that is set back
suspends no lease, and one that is set forward ends none.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass
class _Noted:
    stamp: str
    read_at: float  # monotonic seconds, when the latest answer had come
    still: float = 0.0  # seconds that the stamp has stood still


class LeaseWatch:
    """Knowledge of one reader about leases, each by a key of the reader's choice.

    Time between two readings counts as at most `max_gap` seconds: while Redis is away nobody can renew, and that must
    not be held against the holders.
    """

    def __init__(
        self, seconds: float, *, max_gap: float = math.inf, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.clock = clock
        self._seconds = seconds
        self._max_gap = max_gap
        self._noted: dict[str, _Noted] = {}

    def note(self, key: str, stamp: str, asked_at: float) -> bool:
        """Notes a stamp that Redis was asked for at `asked_at`, and answers whether its holder is dead.

        The time between two readings runs from the answer of the first to the question of the second: it is never
        longer than the stamp has really stood still.
        """
        noted = self._noted.get(key)
        if noted is None or noted.stamp != stamp:
            self._noted[key] = _Noted(stamp, self.clock())
            return False
        noted.still += min(self._max_gap, max(0.0, asked_at - noted.read_at))
        noted.read_at = self.clock()
        return noted.still >= self._seconds

    def observe(self, stamps: Mapping[str, str], asked_at: float) -> None:
        """Notes all leases that there are; others are forgotten."""
        for key in self._noted.keys() - stamps.keys():
            del self._noted[key]
        for key, stamp in stamps.items():
            self.note(key, stamp, asked_at)

    def forget(self, key: str) -> None:
        self._noted.pop(key, None)

    def dead(self) -> dict[str, str]:
        """The leases whose holders are dead, with the stamps that stand still."""
        return {key: noted.stamp for key, noted in self._noted.items() if noted.still >= self._seconds}
