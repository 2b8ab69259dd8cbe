"""A job's events over connections that break: what is new, when to open again and from where. No I/O happens here.

The server numbers a job's events. `Feed` remembers the last number; a new connection asks for what comes after it, and
what comes twice all the same is dropped. A number that is missing was a preview that a newer one replaced.
"""

import json
import time
from typing import Any, TypeAlias, cast

from pydantic import ConfigDict, ValidationError
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from oar_client.errors import BadAnswer, ConnectionFailed, TimedOut, refusal
from oar_client.retry import RETRIED, Attempts, Clock
from oar_wire.base import Sent
from oar_wire.events import EVENTS, TERMINAL_TYPES, Event
from oar_wire.job import GenerationStatus

BREAKS = (WebSocketException, OSError, EOFError)  # a timeout is an OSError
NORMAL = 1000
FIRST_REFUSAL, LAST_REFUSAL, REFUSAL_TO_STATUS = 4400, 4599, 4000  # a close code of 4404 is a status of 404
STEADY_SECONDS = 5.0  # a connection that held as long was a good one, even if nothing happened


class UnknownEvent(Sent):
    """An event that this version does not know; its fields are in `model_extra`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str
    seq: int = 0
    job_id: str = ""
    at: float = 0.0


AnyEvent: TypeAlias = Event | UnknownEvent


def parse_event(fields: dict[str, Any]) -> AnyEvent:
    """An event of a newer server may have types and fields of its own. Raises BadAnswer for what is none at all."""
    try:
        return EVENTS.validate_python(fields)
    except ValidationError:
        pass
    try:
        return UnknownEvent.model_validate(fields)
    except ValidationError as error:
        raise BadAnswer("the stream told what is no event") from error


class Feed:
    """`seq` is the number of the last event that was accepted, `has_ended` whether nothing can follow."""

    def __init__(
        self,
        after: int,
        attempts: Attempts,
        *,
        silence: float,
        timeout: float | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        """`silence` is how many seconds a connection may say nothing before it is opened again; after `timeout`
        seconds in all, TimedOut is raised."""
        self.seq = after
        self.has_ended = False
        self.is_in_doubt = False  # the server closed in order, without an end that we saw: look at the job
        self._attempts = attempts
        self._silence = silence
        self._clock = clock
        self._deadline = None if timeout is None else clock() + timeout
        self._opened_at: float | None = None
        self._error: dict[str, Any] | None = None  # told before a connection is closed

    def opened(self) -> None:
        self._opened_at = self._clock()

    @property
    def patience(self) -> float:
        """Seconds to wait for the next frame."""
        if self._deadline is None:
            return self._silence
        return max(0.0, min(self._silence, self._deadline - self._clock()))

    def accept(self, text: str | bytes) -> AnyEvent | None:
        """The event of one frame; None for what is no news. Raises BadAnswer."""
        try:
            frame: Any = json.loads(text)
        except ValueError as error:
            raise BadAnswer("the stream told what is no JSON") from error
        if not isinstance(frame, dict):
            raise BadAnswer("the stream told what is no event")
        fields = cast("dict[str, Any]", frame)
        if "type" not in fields and isinstance(fields.get("error"), dict):
            self._error = fields["error"]
            return None
        event = parse_event(fields)
        is_end = event.type in TERMINAL_TYPES
        # An end is never old news: nothing is asked for after it.
        if event.seq <= self.seq and not is_end:
            return None
        self.seq, self.has_ended = max(event.seq, self.seq), is_end
        self._attempts.reset()
        return event

    def broke(self, error: Exception) -> float:
        """The pause before a connection is opened again. Raises TimedOut and what cannot be mended."""
        opened_at, self._opened_at = self._opened_at, None
        reported, self._error = self._error, None
        now = self._clock()
        if self._deadline is not None and now >= self._deadline:
            raise self._timed_out() from error
        if opened_at is not None and now - opened_at >= STEADY_SECONDS:
            self._attempts.reset()
        if opened_at is not None and isinstance(error, TimeoutError):
            return 0.0  # it was silent for long enough
        pause = self._pause(error, reported)
        if self._deadline is not None and now + pause > self._deadline:
            return max(0.0, self._deadline - now)
        return pause

    def _pause(self, error: Exception, reported: dict[str, Any] | None) -> float:
        if isinstance(error, InvalidStatus):
            response = error.response
            pause = self._attempts.answered(
                response.status_code, response.headers.get("Retry-After"), bytes(response.body or b"")
            )
            return pause or 0.0
        code = error.rcvd.code if isinstance(error, ConnectionClosed) and error.rcvd else None
        if code is not None and FIRST_REFUSAL <= code <= LAST_REFUSAL:
            refused = refusal(code - REFUSAL_TO_STATUS, reported or {})
            if refused.status not in RETRIED:
                raise refused
            return self._attempts.pause(refused)
        if code == NORMAL:
            self.is_in_doubt = True
            return 0.0
        if reported is not None:
            return self._attempts.pause(refusal(503, reported))
        return self._attempts.unreachable(error)

    def settle(self, status: GenerationStatus) -> float:
        """After doubt: nothing is left to tell of a job that has ended with the last event that we know, or before.

        Returns the pause before a connection is opened again."""
        self.is_in_doubt = False
        self.has_ended = status.status in TERMINAL_TYPES and status.seq <= self.seq
        return 0.0 if self.has_ended else self._attempts.pause(ConnectionFailed("the stream ended before the job"))

    def check_time(self) -> None:
        """Raises TimedOut; a stream that never stops talking has no other moment to notice."""
        if self._deadline is not None and self._clock() >= self._deadline:
            raise self._timed_out()

    def _timed_out(self) -> TimedOut:
        return TimedOut("the job has not ended within the time that was given; it goes on")
