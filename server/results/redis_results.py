"""Results in Redis: gone when their job expires."""

from collections.abc import Sequence

from oar_wire.outputs import OutputData, OutputKind
from server.jobs.connection import RedisConnection
from server.jobs.events import StoredEvent
from server.jobs.job import JobRecord
from server.jobs.store import OutputStore
from server.results.store import Archive, RunInThread, WithTheEnding


class RedisResults(WithTheEnding):
    def __init__(self, connection: RedisConnection) -> None:
        self._outputs = OutputStore(connection)

    def of(self, run: RunInThread) -> "RedisResults":  # noqa: ARG002 - it does not block
        return self

    async def check(self) -> None:
        """Redis is looked at elsewhere."""

    async def read(self, job: JobRecord, kind: OutputKind, index: int) -> OutputData | None:
        return await self._outputs.read(job.id, kind, index)

    async def find(self, tenant: str, job_id: str) -> JobRecord | None:  # noqa: ARG002
        return None

    async def events(self, job: JobRecord) -> Sequence[StoredEvent]:  # noqa: ARG002
        return ()

    async def archive(self, job: Archive) -> None:
        """The job stays where it is."""

    async def delete(self, tenant: str, job_id: str) -> None:
        """The job's keys are deleted with it."""
