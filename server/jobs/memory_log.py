"""The job log of jobs that run in the process that asked for them: no queue, no other worker, nothing outlives it."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from oar_wire.job import GenerationParams
from server.jobs.events import StoredEvent
from server.jobs.job import JobState
from server.jobs.log import Checkpoint, Claim, Ending, Kept, NewEvent, Order, Write


@dataclass(frozen=True)
class JobResult:
    """Times are Unix seconds."""

    created_at: float
    finished_at: float | None
    images: tuple[bytes, ...]  # finished PNGs; none before the job has completed


@dataclass
class _Record:
    job_id: str
    source: bytes | None
    clock: Callable[[], float]
    created_at: float
    deadline: float | None
    seq: int = 0
    events: list[StoredEvent] = field(default_factory=list[StoredEvent])
    previews: dict[int, StoredEvent] = field(default_factory=dict[int, StoredEvent])  # the newest, by image
    outputs: dict[str, bytes | str] = field(default_factory=dict[str, bytes | str])
    values: dict[str, bytes | str] = field(default_factory=dict[str, bytes | str])
    ending: Ending | None = None
    finished_at: float | None = None
    is_canceled: bool = False

    def append(self, event: NewEvent) -> None:
        self.seq += 1
        stored = StoredEvent(self.job_id, self.seq, event.type, round(self.clock(), 3), event.body)
        if event.type == "preview":
            self.previews[event.image] = stored
        else:
            self.events.append(stored)

    def above(self, seq: int) -> list[StoredEvent]:
        """Events with a higher number, in order."""
        events = (event for event in (*self.events, *self.previews.values()) if event.seq > seq)
        return sorted(events, key=lambda event: event.seq)

    def keep(self, item: Kept) -> None:
        (self.outputs if item.is_output else self.values)[item.field] = item.data

    def end(self, ending: Ending) -> None:
        self.append(NewEvent(ending.state.value, ending.body))
        self.ending, self.finished_at = ending, self.clock()

    @property
    def order(self) -> Order:
        if self.ending is not None:
            return Order.LOST
        if self.is_canceled:
            return Order.CANCEL
        return Order.EXPIRE if self.deadline is not None and self.clock() >= self.deadline else Order.GO_ON


class MemoryJobLog:
    """Belongs to one event loop; `cancel` may be called on any thread."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """`clock` counts Unix seconds."""
        self._clock = clock
        self._records: dict[str, _Record] = {}
        self._changed = asyncio.Event()

    def submit(self, job_id: str, params: GenerationParams, source: bytes | None = None) -> Claim:
        """Accepts a job and gives it to the caller at once. `source` is the PNG that an edit starts from."""
        now = self._clock()
        deadline = None if params.deadline is None else now + params.deadline
        record = self._records[job_id] = _Record(job_id, source, self._clock, now, deadline)
        for event in (NewEvent("queued", "{}"), NewEvent("started", '{"attempt":1}')):
            record.append(event)
        return Claim(
            job_id, params.model, 1, attempt=1, seq=record.seq, age=0.0, base=0, begins_again=False, params=params
        )

    def cancel(self, job_id: str) -> None:
        """Asks the worker to end the job: its next write or renewal answers so."""
        self._records[job_id].is_canceled = True

    async def follow(self, job_id: str, after: int = 0) -> Sequence[StoredEvent]:
        """Waits until there are events above number `after`, and returns them. Replaced previews are skipped."""
        while not (events := self._records[job_id].above(after)):
            self._changed.clear()
            await self._changed.wait()
        return events

    def result(self, job_id: str) -> JobResult:
        record = self._records[job_id]
        images = record.ending.images if record.ending is not None and record.ending.state is JobState.COMPLETED else ()
        return JobResult(record.created_at, record.finished_at, images)

    async def checkpoint(self, claim: Claim) -> Checkpoint:  # noqa: ARG002 - no job is begun twice
        return Checkpoint()

    async def source(self, claim: Claim) -> bytes | None:
        return self._records[claim.job_id].source

    async def traceparent(self, claim: Claim) -> str:  # noqa: ARG002
        return ""

    async def write(self, writes: Sequence[Write]) -> list[Order]:
        return [self._write(write) for write in writes]

    def _write(self, write: Write) -> Order:
        record = self._records[write.claim.job_id]
        if record.ending is not None:
            return Order.LOST
        for item in write.kept:
            record.keep(item)
        for event in write.events:
            record.append(event)
        self._changed.set()
        if write.ending is None:
            return record.order
        record.end(write.ending)
        return Order.GO_ON

    async def renew(self, claims: Sequence[Claim]) -> list[Order]:
        return [self._records[claim.job_id].order for claim in claims]

    async def end_lost(self, claim: Claim, seq: int, age: float) -> bool:  # noqa: ARG002 - memory loses nothing
        return False
