"""The queue from the side of whoever submits; `worker_queue` has that of whoever takes.

A model has one stream for each priority. The highest is taken first, but every `priority_aging_seconds` that a job has
waited count as one level more, and within a level the oldest comes first: no job waits for ever behind newer ones.
"""

import hashlib
import json
import uuid
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from oar_wire.errors import (
    IdempotencyConflict,
    JobExpired,
    JobNotFound,
    ModelNotReady,
    QueueFull,
    QueueShareFull,
    StorageShareFull,
)
from oar_wire.job import GenerationParams
from oar_wire.tenant import OPEN_TENANT, Tenant, open_tenant
from server.jobs import keys, scripts
from server.jobs.connection import RedisConnection
from server.jobs.estimate import Fleet, retry_after
from server.jobs.job import Job, JobState
from server.jobs.keys import Field
from server.jobs.shared_reads import SharedReads
from server.jobs.store import RecentRegistry, Registry
from server.settings import Settings

REFUSALS = ("full", "share", "storage")
LOOKS_A_LEASE = 4  # at a job that its worker has to end, by the sweeper
UNSERVED_SECONDS = 5  # after which to ask again for a model that no worker serves
MARGIN = 1.2  # rather a little late than refused again
LINE_LENGTH = 3  # times that all jobs of now take: who is refused is asked to come back no later


@dataclass(frozen=True)
class Idempotency:
    """A client's key, and what it asked for as it asked it: defaults and a chosen seed would differ in a repetition."""

    key: str
    request: str

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.request.encode()).hexdigest()


@dataclass(frozen=True)
class Place:
    """Where a job stood at one moment. Work is in row-steps that are left to do."""

    job: Job  # as it was then
    waiting_ahead: int | None  # 0 for one that runs, None for one that has ended
    work_ahead: int
    own_work: int


@dataclass(frozen=True)
class Submitted:
    job_id: str
    is_replay: bool  # the idempotency key was known: this is the job of the first call
    place: Place | None  # when it was submitted; None for a repeated request whose job is no longer kept


@dataclass(frozen=True)
class _Record:
    """All that is known of an id."""

    job: Job | None
    tombstone: str  # final state and tenant; empty where the job is there or never was


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
        self._records: SharedReads[str, _Record] = SharedReads(self._read)
        self._places: SharedReads[str, Sequence[Any]] = SharedReads(self._look)

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
        output_bytes: int = 0,
        warnings: Sequence[str] = (),
        needs_worker: bool = False,
    ) -> Submitted:
        """Accepts a job, with the `source` PNG of an edit; never enqueues twice. `retry_of` names the ended job that
        this one repeats; `output_bytes` is about what it will write, and is counted until it has. `warnings` are kept
        with the job for whoever looks at it. With `needs_worker`, a job that would wait for nobody is
        refused; a repeated request is answered.

        Raises QueueFull, QueueShareFull, StorageShareFull, ModelNotReady (no worker is alive, and one is needed or the
        queue is full), IdempotencyConflict or RedisUnavailable.
        """
        tenant = self._tenant or open_tenant()
        depth = self._settings.queue_depth
        job_id = f"gen-{uuid.uuid4().hex}"
        deadline = self._settings.job_deadline if params.deadline is None else params.deadline
        fields = self._fields(params, retry_of, warnings)
        if source is not None:
            fields[Field.SOURCE] = keys.source(job_id)
        reply = await scripts.run(
            self._connection,
            "submit",
            [
                *keys.of_job(job_id, params.model, params.priority),
                keys.idempotency(idempotency.key if idempotency else "", tenant.name),
                keys.share(params.model, tenant.name),
                keys.storage(tenant.name),
                *keys.queues(params.model),
            ],
            {
                "id": job_id,
                "model": params.model,
                "tenant": tenant.name,
                "fields": fields,
                "work": params.n * params.all_steps * params.rows_per_image,
                "deadline_ms": milliseconds(deadline),
                "depth": depth,
                "share": tenant.max_jobs(depth),
                "space": tenant.max_bytes(self._settings.storage_mib),
                "output_bytes": output_bytes,
                "fingerprint": idempotency.fingerprint if idempotency else "",
                "idempotency_ms": milliseconds(self._settings.idempotency_ttl),
                "is_served": not needs_worker or bool((await self.fleet(params.model)).workers),
                "aging_ms": self._aging,
            },
            [source or b""],
        )
        return await self._outcome(job_id, params, tenant, reply)

    def _fields(self, params: GenerationParams, retry_of: str, warnings: Sequence[str]) -> dict[Field, str]:
        """What a new job's hash holds of its request."""
        fields: dict[Field, str] = {
            Field.MODEL: params.model,
            Field.PRIORITY: params.priority,
            Field.PARAMS: params.model_dump_json(),
            Field.ROWS: str(params.rows_per_image),
            Field.RETRY_OF: retry_of,
        }
        if warnings:
            fields[Field.WARNINGS] = json.dumps(warnings)
        if trace := self._traceparent():
            fields[Field.TRACE] = trace
        return fields

    async def _outcome(self, job_id: str, params: GenerationParams, tenant: Tenant, reply: Sequence[Any]) -> Submitted:
        """What the script decided, as an answer or an error."""
        outcome = reply[0].decode()
        if outcome == "accepted":
            return Submitted(job_id, is_replay=False, place=_place(job_id, reply[1:5]))
        if outcome == "replayed":
            known = reply[5].decode()
            return Submitted(known, is_replay=True, place=_place(known, reply[1:5]) if reply[4] else None)
        if outcome == "unserved":
            message = f"no worker serves the model {params.model!r} now"
            raise ModelNotReady(message, field="model", retry_after=UNSERVED_SECONDS)
        if outcome in REFUSALS:
            raise await self._refusal(params, tenant, outcome, reply[1:])
        raise IdempotencyConflict("this Idempotency-Key was used for another request", field="Idempotency-Key")

    async def _refusal(
        self, params: GenerationParams, tenant: Tenant, outcome: str, facts: Sequence[int]
    ) -> QueueFull | ModelNotReady:
        fleet = await self.fleet(params.model)
        if outcome == "storage":
            return _storage_refusal(tenant, fleet, *facts)
        num_jobs, work = facts
        # The others are taken to have as many pictures each as the job that is refused.
        pictures = num_jobs * params.n
        seconds = retry_after(work, fleet, pictures * params.rows_per_image, pictures)
        if not fleet.workers and outcome == "full":
            return ModelNotReady(f"{num_jobs} jobs wait already and no worker is alive", retry_after=seconds)
        line = keys.line(params.model, tenant.name if outcome == "share" else "")
        place = await self._place_in_line(line, num_jobs, seconds)
        if outcome == "share":
            message = f"{num_jobs} jobs of {tenant.name} wait or run already, which is its share of the queue"
            return QueueShareFull(message, retry_after=place)
        return QueueFull(f"{num_jobs} jobs wait or run already", retry_after=place)

    async def _place_in_line(self, line: str, num_jobs: int, seconds: float) -> float:
        """When to come back, in seconds: those who are refused get one place after the other of the `num_jobs` that
        will be free after `seconds`."""
        first = milliseconds(MARGIN * seconds)
        gap = max(1, first // max(1, num_jobs))
        args = {"first_ms": first, "gap_ms": gap, "most_ms": int(first * LINE_LENGTH)}
        return await scripts.run(self._connection, "line", [line], args) / 1000

    async def fleet(self, model: str) -> Fleet:
        """The workers of a model that were alive `registry_seconds` ago."""
        return Fleet.of(model, await self._registry.workers())

    async def load(self, job_id: str) -> Job:
        """Raises JobExpired when the job is past its keeping time, JobNotFound when it never was, or is not ours."""
        record = await self._records.get(job_id)
        if record.job is not None and self._owns(record.job.tenant):
            return record.job
        lost: bytes | None = None
        if record.job is not None or not record.tombstone:
            lost = await self._connection.again("GET", keys.DATA_LOST)
        raise self._absence(job_id, "" if record.job else record.tombstone, lost)

    async def look(self, job_id: str) -> Place:
        """A job and where it stands as of now: jobs of a higher priority may yet overtake it. Raises as `load`."""
        reply = await self._places.get(job_id)
        *place, tombstone, lost = reply
        if place[3] and self._owns((found := _place(job_id, place)).job.tenant):
            return found
        raise self._absence(job_id, "" if place[3] else tombstone.decode(), lost)

    async def _look(self, job_id: str) -> Sequence[Any]:
        names = [keys.tombstone(job_id), keys.DATA_LOST]
        return await scripts.run(self._connection, "look", names, {"id": job_id, "aging_ms": self._aging})

    def _absence(self, job_id: str, tombstone: str, lost: bytes | None) -> JobExpired | JobNotFound:
        """Why there is no such job, as far as we may know. `lost` is when Redis lost its data, if it has."""
        state, _, tenant = tombstone.partition(" ")
        if state and self._owns(tenant or OPEN_TENANT):
            return JobExpired(f"job {job_id[:80]} was {state} and is no longer kept")
        hint = f"; Redis lost its data at {_utc(int(lost) / 1000)}, and the jobs of before" if lost else ""
        return JobNotFound(f"there is no job {job_id[:80]!r}{hint}")

    async def _read(self, job_id: str) -> "_Record":
        reply: list[bytes] = await self._connection.again("HGETALL", keys.job(job_id))
        if reply:
            return _Record(_parse(job_id, reply), "")
        tombstone: bytes | None = await self._connection.again("GET", keys.tombstone(job_id))
        if tombstone is not None:
            # Its worker may have written between the two reads how a job ended that went with Redis' data.
            reply = await self._connection.again("HGETALL", keys.job(job_id))
            if reply:
                return _Record(_parse(job_id, reply), "")
        return _Record(None, (tombstone or b"").decode())

    async def load_many(self, job_ids: Sequence[str]) -> list[Job]:
        """Those that are still kept and ours, in one round trip."""
        replies = await self._connection.again_many([("HGETALL", keys.job(job_id)) for job_id in job_ids])
        jobs = [_parse(job_id, reply) for job_id, reply in zip(job_ids, replies) if reply]
        return [job for job in jobs if self._owns(job.tenant)]

    def _owns(self, tenant: str) -> bool:
        return self._tenant is None or self._tenant.name == tenant

    async def cancel(self, job: Job) -> JobState:
        """Ends a waiting job at once and tells a running job's worker. Returns the state afterwards.

        Raises JobExpired, JobNotFound when the job has gone meanwhile.
        """
        reply = await scripts.run(
            self._connection,
            "cancel",
            keys.of_job(job.id, job.params.model, job.priority),
            {
                "unbegun_ms": milliseconds(min(self._settings.canceled_ttl, self._settings.result_ttl)),
                "look_again_ms": milliseconds(self._settings.lease_seconds / LOOKS_A_LEASE),
                **lifetimes(self._settings),
            },
        )
        return JobState(reply.decode()) if reply else (await self.load(job.id)).state

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


def _storage_refusal(tenant: Tenant, fleet: Fleet, num_bytes: int, wait: int, work: int) -> StorageShareFull:
    """`wait` are the milliseconds until enough has expired; -1 where jobs have to end before."""
    owner = "all jobs" if tenant.name == OPEN_TENANT else f"the jobs of {tenant.name}"
    message = f"{num_bytes / 2**20:.1f} MiB are kept of {owner}, and there is no room for more"
    return StorageShareFull(message, retry_after=retry_after(work, fleet) if wait < 0 else wait / 1000)


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _parse(job_id: str, reply: Sequence[bytes]) -> Job:
    """From a hash as Redis answers it."""
    words = [word.decode() for word in reply]
    return Job.from_hash(job_id, dict(zip(words[::2], words[1::2])))


def _place(job_id: str, reply: Sequence[Any]) -> Place:
    waiting, ahead, own, facts = reply
    return Place(_parse(job_id, facts), None if waiting < 0 else int(waiting), int(ahead), int(own))


def lifetimes(settings: Settings) -> dict[str, int]:
    """Arguments of the scripts that end jobs."""
    return {
        "result_ms": milliseconds(settings.result_ttl),
        "tombstone_ms": milliseconds(settings.result_ttl + settings.tombstone_ttl),
    }


def milliseconds(seconds: float) -> int:
    """At least 1 for what is more than nothing: 0 stands for never."""
    return max(1, round(seconds * 1000)) if seconds > 0 else 0
