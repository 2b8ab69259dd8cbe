"""The queue from the side of whoever submits; `worker_queue` has that of whoever takes.

A model has one stream for each priority. The highest is taken first, but every `priority_aging_seconds` that a job has
waited count as one level more, and within a level the oldest comes first: no job waits for ever behind newer ones.
"""

from collections.abc import Callable, Sequence
from copy import copy
from typing import Unpack, cast

from oar_wire.job import GenerationParams
from oar_wire.tenant import Tenant, open_tenant
from server.jobs import keys, scripts
from server.jobs.admission import Admission, Idempotency, SubmitOptions, Submitted
from server.jobs.connection import RedisConnection
from server.jobs.durations import lifetimes, milliseconds
from server.jobs.estimate import Fleet
from server.jobs.job import JobRecord, JobState
from server.jobs.job_reader import JobReader, Place
from server.jobs.keys import Field
from server.jobs.store import RecentRegistry, Registry
from server.settings import Settings

LOOKS_A_LEASE = 4  # at a job that its worker has to end, by the sweeper


class JobQueue:
    """Queue as the API uses it."""

    def __init__(
        self, connection: RedisConnection, settings: Settings, traceparent: Callable[[], str] = lambda: ""
    ) -> None:
        """`traceparent` finds the trace that a submitted job belongs to, if any.

        The operator's view: all jobs are seen, and what is submitted is nobody's in particular.
        """
        self._connection = connection
        self._settings = settings
        recent = RecentRegistry(Registry(connection), settings.registry_seconds)
        self.admission = Admission(connection, settings, recent, traceparent)
        self._reader = JobReader(connection, milliseconds(settings.priority_aging_seconds))
        self._tenant: Tenant | None = None

    def of(self, tenant: Tenant) -> "JobQueue":
        """A tenant's view: its own jobs are all that there is, and its limits hold."""
        queue = copy(self)
        queue._tenant = tenant
        return queue

    async def submit(
        self, params: GenerationParams, idempotency: Idempotency | None = None, **options: Unpack[SubmitOptions]
    ) -> Submitted:
        """Accepts a job; never enqueues twice. Raises as `Admission.submit`."""
        return await self.admission.submit(params, self._tenant or open_tenant(), idempotency, **options)

    async def fleet(self, model: str) -> Fleet:
        """The workers of a model that were alive `registry_seconds` ago."""
        return await self.admission.fleet(model)

    async def load(self, job_id: str) -> JobRecord:
        """Raises JobExpired when the job is past its keeping time, JobNotFound when it never was, or is not ours."""
        return await self._reader.load(job_id, self._tenant)

    async def look(self, job_id: str) -> Place:
        """A job and where it stands as of now: jobs of a higher priority may yet overtake it. Raises as `load`."""
        return await self._reader.look(job_id, self._tenant)

    async def load_many(self, job_ids: Sequence[str]) -> list[JobRecord]:
        """Loads those that are still kept and ours, in one round trip."""
        return await self._reader.load_many(job_ids, self._tenant)

    async def cancel(self, job: JobRecord) -> JobState:
        """Ends a waiting job at once and tells a running job's worker. Returns the state afterwards.

        Raises JobExpired, JobNotFound when the job has gone meanwhile.
        """
        reply = await scripts.run(
            self._connection,
            "cancel",
            keys.job_keys(job.id, job.params.model, job.priority),
            {
                "unbegun_ms": milliseconds(min(self._settings.canceled_ttl, self._settings.result_ttl)),
                "look_again_ms": milliseconds(self._settings.lease_seconds / LOOKS_A_LEASE),
                **lifetimes(self._settings),
            },
        )
        return JobState(reply.decode()) if reply else (await self.load(job.id)).state

    async def delete(self, job: JobRecord) -> None:
        """Deletes what Redis holds of a job that has ended, but that it was there. Raises RedisUnavailable."""
        images = (keys.image_key(job.id, index) for index in range(job.params.num_outputs("image")))
        names = [*keys.job_keys(job.id, job.params.model, job.priority), keys.outputs_key(job.id), *images]
        await scripts.run(self._connection, "delete", names, {"id": job.id})

    async def depth(self, model: str) -> int:
        """Jobs of a model that wait or run."""
        return sum(await self._connection.again_many([("XLEN", queue) for queue in keys.queue_keys(model)]))

    async def active(self, model: str) -> list[str]:
        """Ids of a model's jobs that wait or run, by priority, the oldest first; of a tenant's view in no order."""
        if self._tenant is not None:
            members = await self._connection.again("SMEMBERS", keys.share_key(model, self._tenant.name))
            return [member.decode() for member in members]
        replies = await self._connection.again_many([("XRANGE", queue, "-", "+") for queue in keys.queue_keys(model)])
        return [words[1].decode() for reply in replies for _, words in reply]

    async def ended(self) -> list[str]:
        """Ids of all jobs whose record is still kept and that neither wait nor run, in no order."""
        found: list[str] = []
        cursor = b"0"
        while True:
            words = ("SCAN", cursor, "MATCH", keys.job_key("*"), "COUNT", 1000)
            cursor, names = cast("tuple[bytes, list[bytes]]", await self._connection.again(*words))
            found += [name.decode().removeprefix(keys.job_key("")) for name in names]
            if cursor == b"0":
                break
        states = await self._connection.again_many([("HGET", keys.job_key(job_id), Field.STATE) for job_id in found])
        kept = {job_id for job_id, state in zip(found, states) if state and JobState(state.decode()).is_terminal}
        return list(kept)
