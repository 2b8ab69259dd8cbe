"""The event log of a job as the worker that runs it reads and writes it: a protocol with two implementations.

`server/jobs/redis_log.py` has the jobs of a server, `server/jobs/memory_log.py` those of one process.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple, Protocol

from oar_wire.errors import AttemptsExhausted, DataLost, DeadlineExceeded
from oar_wire.events import Failed
from oar_wire.job import Failure, GenerationParams
from oar_wire.outputs import OutputData
from oar_wire.tenant import OPEN_TENANT
from server.jobs import keys
from server.jobs.events import StoredEvent
from server.jobs.job import JobState

LATE = Failed(error=Failure.of(DeadlineExceeded()))
WORN_OUT = Failed(error=Failure.of(AttemptsExhausted()))
LOST = Failed(error=Failure.of(DataLost()))


@dataclass(frozen=True)
class Claim:
    """A job that this worker runs. `epoch` fences what it writes; `seq` is the number of the latest event."""

    job_id: str
    model: str
    epoch: int
    attempt: int
    seq: int
    age: float  # seconds since it was submitted
    base: int  # events up to this number do not count: another model drew them
    begins_again: bool  # this claim found such events, and said `restarted` from nothing
    params: GenerationParams
    tenant: str = OPEN_TENANT

    @property
    def priority(self) -> str:
        return self.params.priority

    @property
    def is_restart(self) -> bool:
        return self.epoch > 1


class NewEvent(NamedTuple):
    """An event without its number."""

    type: str
    body: str
    image: int = 0  # of a preview: it replaces the one before
    steps: int = 0  # that a frame took; `patches` are of one


class Kept(NamedTuple):
    """Bytes beside the event log, which events that are written next speak of."""

    is_output: bool  # else the values of a frame
    field: str
    data: bytes | str


def kept_output(output: OutputData) -> tuple[Kept, ...]:
    """An output as it is stored beside the event log."""
    data, media_type = keys.output_fields(output.kind, output.index)
    return Kept(True, data, output.data), Kept(True, media_type, output.media_type)


@dataclass(frozen=True)
class Ending:
    """The terminal event of a job, with what is stored together with it."""

    state: JobState
    body: str
    images: tuple[bytes, ...] = ()
    kept: tuple[Kept, ...] = ()  # outputs of other kinds
    is_archived: bool = False  # the outputs are in a store of their own, and the job is to follow

    @classmethod
    def completed(cls, body: str, outputs: Sequence[OutputData], *, is_archived: bool = False) -> "Ending":
        """Images are stored with the ending, other outputs before it."""
        images = tuple(output.data for output in outputs if output.kind == "image")
        kept = tuple(item for output in outputs if output.kind != "image" for item in kept_output(output))
        return cls(JobState.COMPLETED, body, images, kept, is_archived)


class Order(IntEnum):
    """Answer of the log to the worker of a job, as the Lua scripts encode it."""

    LOST = -1  # another worker has the job, or the log knows nothing of it
    GO_ON = 0
    CANCEL = 1
    EXPIRE = 2  # its deadline has passed


@dataclass(frozen=True)
class Write:
    """All that is new about one job. A repeated write changes nothing."""

    claim: Claim
    seq: int  # number of the event before the first of `events`
    kept: Sequence[Kept] = ()  # stored before the events
    events: Sequence[NewEvent] = ()
    ending: Ending | None = None


@dataclass(frozen=True)
class Checkpoint:
    """State that a job goes on from."""

    events: Sequence[StoredEvent] = ()
    values: Mapping[tuple[int, int], bytes] = field(default_factory=dict[tuple[int, int], bytes])  # by video and frame


class JobLog(Protocol):
    """Log where a worker reads and writes its jobs. All methods raise RedisUnavailable where Redis is away."""

    async def checkpoint(self, claim: Claim) -> Checkpoint:
        """Reads what the claim's job goes on from; it is empty for a first attempt."""
        ...

    async def source(self, claim: Claim) -> bytes | None:
        """Reads the PNG that an edit starts from; None where it is no longer kept."""
        ...

    async def traceparent(self, claim: Claim) -> str:
        """Reads the trace that the job belongs to; empty where there is none."""
        ...

    async def write(self, writes: Sequence[Write]) -> list[Order]:
        """Writes about several jobs at once. Answers with one order for each."""
        ...

    async def renew(self, claims: Sequence[Claim]) -> list[Order]:
        """Keeps the leases of jobs. Answers with one order for each."""
        ...

    async def end_lost(self, claim: Claim, seq: int, age: float) -> bool:
        """Ends a job as failed if the log knows nothing of it any more; False where it does. `seq` is the number of the
        terminal event."""
        ...
