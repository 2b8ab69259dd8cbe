"""Rules of when to try again, and how long to wait before: the same for answers and for streams, without any I/O."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from oar_client.errors import BadAnswer, ConnectionFailed, OarError, error_object, refusal

RETRIED = frozenset({408, 425, 429, 502, 503, 504})
EARLIEST_ERROR = 400
OK = range(200, 300)

Clock = Callable[[], float]
Chance = Callable[[], float]


@dataclass(frozen=True)
class Patience:
    """Limits of how long what fails is tried again. All in seconds."""

    seconds: float = 60.0  # of trouble in a row, for a call as for a stream; 0 tries once
    first_contact: float = 3.0  # as long as the server has never been reached: it may not exist
    first_pause: float = 0.2  # it doubles from try to try
    longest_pause: float = 5.0
    longest_retry_after: float = 30.0  # a server that asks for more is not waited for

    @classmethod
    def none(cls) -> "Patience":
        return cls(seconds=0.0, first_contact=0.0)


class Attempts:
    """Tries of one thing. Its methods return the pause before the next one, in seconds, or raise an OarError."""

    def __init__(
        self,
        patience: Patience,
        *,
        has_contact: bool = True,
        clock: Clock = time.monotonic,
        chance: Chance | None = None,
    ) -> None:
        """`has_contact`: whether the server is known to exist."""
        self._patience = patience
        self._clock = clock
        self._chance = chance or random.SystemRandom().random
        self._count = 0
        self._since: float | None = None  # when the trouble began
        self._has_contact = has_contact

    def reset(self) -> None:
        """Forgets past failures: it goes well again."""
        self._count, self._since, self._has_contact = 0, None, True

    def unreachable(self, error: Exception) -> float:
        """No answer came, or half of one."""
        reason = str(error) or type(error).__name__
        failed = ConnectionFailed(f"the server cannot be reached: {reason}")
        failed.__cause__ = error
        return self.pause(failed)

    def answered(self, status: int, retry_after: str | None, body: bytes) -> float | None:
        """None for an answer to go on with."""
        self._has_contact = True
        if status in OK:
            return None
        if status < EARLIEST_ERROR:
            raise BadAnswer(f"the server answered {status}, which is no part of its protocol", status=status)
        error = refusal(status, error_object(body), parse_retry_after(retry_after))
        if status not in RETRIED:
            raise error
        return self.pause(error)

    def pause(self, error: OarError) -> float:
        """After an error that may not come again. Full jitter would let some come back at once; half is certain."""
        now = self._clock()
        if self._since is None:
            self._since = now
        limit = self._patience.seconds
        if not self._has_contact:
            limit = min(limit, self._patience.first_contact)
        pause = min(self._patience.longest_pause, self._patience.first_pause * 2**self._count)
        pause *= 0.5 + 0.5 * self._chance()
        asked = error.retry_after
        if asked is not None:
            if asked > self._patience.longest_retry_after:
                raise error
            pause = max(pause, asked * (1 + 0.25 * self._chance()))  # those sent away together are not to meet again
        if now - self._since + pause > limit:
            raise error
        self._count += 1
        return pause


def parse_retry_after(text: str | None, now: datetime | None = None) -> float | None:
    """Seconds, from a number or a date; None where it is neither."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - (now or datetime.now(UTC))).total_seconds())
