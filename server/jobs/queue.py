"""The queue from the side of whoever submits; `worker_queue` has that of whoever takes.

A model has one stream for each priority. The highest is taken first, but every `priority_aging_seconds` that a job has
waited count as one level more, and within a level the oldest comes first: no job waits for ever behind newer ones.
"""

import hashlib
import uuid
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import chain
from typing import Any, cast

from server.errors import IdempotencyConflict, JobExpired, JobNotFound, ModelNotReady, QueueFull, QueueShareFull
from server.jobs import keys, scripts
from server.jobs.connection import RedisConnection
from server.jobs.estimate import Fleet, retry_after
from server.jobs.job import Job, JobState
from server.jobs.keys import Field
from server.jobs.store import RecentRegistry, Registry
from server.schemas.generation import GenerationParams
from server.schemas.tenant import OPEN_TENANT, Tenant, open_tenant
from server.settings import Settings

SOURCE_SUBMIT_MS = 60_000  # a source whose job was not accepted is forgotten after this


@dataclass(frozen=True)
class Idempotency:
    """A client's key, and what it asked for as it asked it: defaults and a chosen seed would differ in a repetition."""

    key: str
    request: str

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.request.encode()).hexdigest()


@dataclass(frozen=True)
class Submitted:
    job_id: str
    is_replay: bool  # the idempotency key was known: this is the job of the first call


@dataclass(frozen=True)
class Place:
    """Where a job stood at one moment. Work is in row-steps that are left to do."""

    job: Job  # as it was then
    waiting_ahead: int | None  # 0 for one that runs, None for one that has ended
    work_ahead: int
    own_work: int


class JobQueue:
    """What the API does with jobs."""

    def __init__(
        self, connection: RedisConnection, settings: Settings, traceparent: Callable[[], str] = lambda: ""
    ) -> None:
        """`traceparent` tells the trace that a submitted job belongs to, if any.

        The operator's view: all jobs are seen, and what is submitted is nobody's in particular.
        """
        self._connection = connection
        self._settings = settings
        self._registry = RecentRegistry(Registry(connection), settings.registry_seconds)
        self._traceparent = traceparent
        self._tenant: Tenant | None = None

    def of(self, tenant: Tenant) -> "JobQueue":
        """A tenant's view: its own jobs are all that there is, and its limits hold."""
        queue = copy(self)
        queue._tenant = tenant
        return queue

    async def submit(
        self,
        params: GenerationParams,
        idempotency: Idempotency | None = None,
        *,
        source: bytes | None = None,
        retry_of: str = "",
    ) -> Submitted:
        """Accepts a job, with the `source` PNG of an edit; never enqueues twice. `retry_of` names the ended job that
        this one repeats.

        Raises QueueFull, QueueShareFull, ModelNotReady (full, and no worker is alive), IdempotencyConflict or
        RedisUnavailable.
        """
        tenant = self._tenant or open_tenant()
        depth = self._settings.queue_depth
        job_id = f"gen-{uuid.uuid4().hex}"
        deadline = self._settings.job_deadline if params.deadline is None else params.deadline
        fields = self._fields(params, retry_of)
        if source is not None:
            fields[Field.SOURCE] = keys.source(job_id)
            await self._connection.again("SET", keys.source(job_id), source, "PX", SOURCE_SUBMIT_MS)
        reply = await scripts.run(
            self._connection,
            "submit",
            [
                *job_keys(job_id, params.model, params.priority),
                keys.idempotency(idempotency.key if idempotency else "", tenant.name),
                keys.share(params.model, tenant.name),
                *keys.queues(params.model),
            ],
            [
                job_id,
                depth,
                milliseconds(deadline),
                idempotency.fingerprint if idempotency else "",
                milliseconds(self._settings.idempotency_ttl),
                keys.GROUP,
                params.n * params.steps * params.rows_per_image,
                tenant.name,
                tenant.max_jobs(depth),
                *chain.from_iterable(fields.items()),
            ],
        )
        return await self._outcome(Submitted(job_id, is_replay=False), params.model, tenant, reply)

    def _fields(self, params: GenerationParams, retry_of: str) -> dict[Field, str | int]:
        """What a new job's hash holds of its request."""
        fields: dict[Field, str | int] = {
            Field.MODEL: params.model,
            Field.PRIORITY: params.priority,
            Field.PARAMS: params.model_dump_json(),
            Field.ROWS: params.rows_per_image,
            Field.RETRY_OF: retry_of,
        }
        if trace := self._traceparent():
            fields[Field.TRACE] = trace
        return fields

    async def _outcome(self, accepted: Submitted, model: str, tenant: Tenant, reply: Sequence[Any]) -> Submitted:
        """What the script decided, as an answer or an error."""
        outcome = reply[0].decode()
        if outcome == "full":
            raise await self._refusal(model, num_jobs=reply[1], work=reply[2])
        if outcome == "share":
            seconds = retry_after(reply[2], await self.fleet(model))
            message = f"{reply[1]} jobs of {tenant.name} wait or run already, which is its share of the queue"
            raise QueueShareFull(message, retry_after=seconds)
        if outcome == "conflict":
            raise IdempotencyConflict("this Idempotency-Key was used for another request", field="Idempotency-Key")
        if outcome == "replayed":
            return Submitted(reply[1].decode(), is_replay=True)
        return accepted

    async def _refusal(self, model: str, *, num_jobs: int, work: int) -> QueueFull | ModelNotReady:
        fleet = await self.fleet(model)
        seconds = retry_after(work, fleet)
        if not fleet.workers:
            return ModelNotReady(f"{num_jobs} jobs wait already and no worker is alive", retry_after=seconds)
        return QueueFull(f"{num_jobs} jobs wait or run already", retry_after=seconds)

    async def fleet(self, model: str) -> Fleet:
        """The workers of a model that were alive `registry_seconds` ago."""
        return Fleet.of(model, await self._registry.workers())

    async def load(self, job_id: str) -> Job:
        """Raises JobExpired when the job is past its keeping time, JobNotFound when it never was, or is not ours."""
        reply: list[bytes] = await self._connection.again("HGETALL", keys.job(job_id))
        job = _parse(job_id, reply) if reply else None
        if job is not None and self._owns(job.tenant):
            return job
        tombstone: bytes | None = await self._connection.again("GET", keys.tombstone(job_id))
        state, _, tenant = (tombstone or b"").decode().partition(" ")
        if state and job is None and self._owns(tenant or OPEN_TENANT):
            raise JobExpired(f"job {job_id[:80]} was {state} and is no longer kept")
        raise JobNotFound(f"there is no job {job_id[:80]!r}")

    async def load_many(self, job_ids: Sequence[str]) -> list[Job]:
        """Those that are still kept and ours, in one round trip."""
        replies = await self._connection.again_many([("HGETALL", keys.job(job_id)) for job_id in job_ids])
        jobs = [_parse(job_id, reply) for job_id, reply in zip(job_ids, replies) if reply]
        return [job for job in jobs if self._owns(job.tenant)]

    def _owns(self, tenant: str) -> bool:
        return self._tenant is None or self._tenant.name == tenant

    async def cancel(self, job: Job) -> JobState:
        """Ends a waiting job at once and tells a running job's worker. Returns the state afterwards."""
        reply = await scripts.run(
            self._connection,
            "cancel",
            job_keys(job.id, job.params.model, job.priority),
            [
                *(keys.GROUP, keys.CONTROL_PREFIX, *lifetimes(self._settings)),
                milliseconds(self._settings.lease_seconds),
            ],
        )
        if not reply:
            raise JobExpired(f"job {job.id} is no longer kept")
        return JobState(reply.decode())

    async def place(self, job: Job) -> Place:
        """Where a job stands as of now: jobs of a higher priority may yet overtake it. Raises JobExpired."""
        reply = await scripts.run(
            self._connection,
            "position",
            [keys.job(job.id), *keys.queues(job.params.model)],
            [keys.GROUP, self._aging, keys.PRIORITIES.index(job.priority) + 1],
        )
        waiting, ahead, own, facts = reply
        if not facts:
            raise JobExpired(f"job {job.id} is no longer kept")
        return Place(_parse(job.id, facts), None if waiting < 0 else int(waiting), int(ahead), int(own))

    @property
    def _aging(self) -> int:
        return milliseconds(self._settings.priority_aging_seconds)

    async def depth(self, model: str) -> int:
        """Jobs of a model that wait or run."""
        return sum(await self._connection.again_many([("XLEN", queue) for queue in keys.queues(model)]))

    async def active(self, model: str) -> list[str]:
        """Ids of a model's jobs that wait or run, by priority, the oldest first; of a tenant's view in no order."""
        if self._tenant is not None:
            members = await self._connection.again("SMEMBERS", keys.share(model, self._tenant.name))
            return [member.decode() for member in members]
        replies = await self._connection.again_many([("XRANGE", queue, "-", "+") for queue in keys.queues(model)])
        return [words[1].decode() for reply in replies for _, words in reply]

    async def ended(self) -> list[str]:
        """Ids of all jobs whose record is still kept and that neither wait nor run, in no order."""
        found: list[str] = []
        cursor = b"0"
        while True:
            words = ("SCAN", cursor, "MATCH", keys.job("*"), "COUNT", 1000)
            cursor, names = cast("tuple[bytes, list[bytes]]", await self._connection.again(*words))
            found += [name.decode().removeprefix(keys.job("")) for name in names]
            if cursor == b"0":
                break
        states = await self._connection.again_many([("HGET", keys.job(job_id), Field.STATE) for job_id in found])
        kept = {job_id for job_id, state in zip(found, states) if state and JobState(state.decode()).is_terminal}
        return list(kept)


def _parse(job_id: str, reply: Sequence[bytes]) -> Job:
    """From a hash as Redis answers it."""
    words = [word.decode() for word in reply]
    return Job.from_hash(job_id, dict(zip(words[::2], words[1::2])))


def job_keys(job_id: str, model: str, priority: str) -> list[str]:
    """What every script about one job is given first."""
    return [
        keys.job(job_id),
        keys.events(job_id),
        keys.queue(model, priority),
        keys.tombstone(job_id),
        keys.previews(job_id),
        keys.DUE,
    ]


def lifetimes(settings: Settings) -> tuple[int, int]:
    return milliseconds(settings.result_ttl), milliseconds(settings.result_ttl + settings.tombstone_ttl)


def milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
