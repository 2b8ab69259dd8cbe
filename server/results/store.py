"""A store of results: what a completed job made, its record and its events.

With Redis as the store, outputs are written by the script that ends the job. Any other store gets them before, so an
ending never names an output that is not there; its record and events follow when the archiver moves them out of Redis.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from oar_wire.outputs import OutputData, OutputKind
from server.jobs.events import StoredEvent
from server.jobs.job import JobRecord

T = TypeVar("T")


class ResultsRefused(RuntimeError):
    """The store cannot work as it is set up; the message says why."""


@dataclass(frozen=True)
class ResultKey:
    """Place of what one claim of a job makes. A worker that has lost its claim writes beside the one that has it."""

    tenant: str
    job_id: str
    epoch: int


@dataclass(frozen=True)
class Archive:
    """All that Redis holds of a completed job."""

    tenant: str
    job_id: str
    fields: Mapping[str, str]  # of the job's hash
    events: Sequence[StoredEvent]
    outputs: Sequence[OutputData]  # that are still in Redis


class RunInThread(Protocol):
    """Runs blocking work in a bounded pool of threads."""

    def __call__(self, work: Callable[[], T], /) -> Awaitable[T]: ...


class ResultWriter(Protocol):
    async def save(self, key: ResultKey, outputs: Sequence[OutputData]) -> Sequence[OutputData]:
        """Stores outputs. Returns those that are to be stored with the job's ending. A repeated call changes nothing.

        Raises ResultsUnavailable."""
        ...

    @property
    def is_apart(self) -> bool:
        """Tells whether results outlive what Redis holds of their job."""
        ...


class ResultStore(ResultWriter, Protocol):
    """All methods raise ResultsUnavailable where the store does not answer, RedisUnavailable where Redis does not."""

    def of(self, run: RunInThread) -> "ResultStore":
        """Returns a view whose reads run in these threads."""
        ...

    async def check(self) -> None:
        """Writes a probe. Raises ResultsRefused where only an operator can help."""
        ...

    async def read(self, job: JobRecord, kind: OutputKind, index: int) -> OutputData | None: ...

    async def find(self, tenant: str, job_id: str) -> JobRecord | None:
        """Finds an archived job of a tenant. Any text may be asked for as an id."""
        ...

    async def events(self, job: JobRecord) -> Sequence[StoredEvent]:
        """Reads all events of an archived job."""
        ...

    async def archive(self, job: Archive) -> None:
        """Stores a job's record and events. A repeated call changes nothing."""
        ...

    async def delete(self, tenant: str, job_id: str) -> None:
        """Deletes all that is stored of a job."""
        ...


class WithTheEnding:
    """Leaves all outputs to the job's ending."""

    is_apart = False

    async def save(self, key: ResultKey, outputs: Sequence[OutputData]) -> Sequence[OutputData]:  # noqa: ARG002
        return outputs


WITH_THE_ENDING = WithTheEnding()
