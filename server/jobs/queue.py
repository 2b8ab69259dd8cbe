"""The queue from both sides: `JobQueue` for who submits, `WorkerQueue` for who takes.

A model has one stream for each priority. The highest is taken first, but every `priority_aging_seconds` that a job has
waited count as one level more, and within a level the oldest comes first: no job waits for ever behind newer ones.
"""

import hashlib
import secrets
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple, cast

from redis.exceptions import ResponseError

from server.errors import IdempotencyConflict, JobExpired, JobNotFound, ModelNotReady, QueueFull, QueueShareFull
from server.jobs import keys, scripts
from server.jobs.connection import RedisConnection
from server.jobs.estimate import Fleet, retry_after
from server.jobs.job import Job, JobState
from server.jobs.keys import Field
from server.jobs.store import RecentRegistry, Registry
from server.schemas.events import Failed
from server.schemas.generation import Failure, GenerationParams
from server.schemas.tenant import OPEN_TENANT, Tenant, open_tenant
from server.settings import Settings

LATE = Failed(error=Failure(code="deadline_exceeded", message="the job's deadline passed before it was finished"))
WORN_OUT = Failed(error=Failure(code="attempts_exhausted", message="the job's worker died too often"))

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


@dataclass(frozen=True)
class Taken:
    """A queue's entry that was given to this worker. `nonce` makes a claim that is repeated one claim."""

    entry: str
    job_id: str
    priority: str
    nonce: str = field(default_factory=lambda: secrets.token_hex(8))


class NewEvent(NamedTuple):
    """An event without its number."""

    type: str
    body: str
    image: int = 0  # of a preview: it replaces the one before


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
    is_anew: bool  # this claim found such events, and said `restarted` from nothing
    params: GenerationParams

    @property
    def priority(self) -> str:
        return self.params.priority

    @property
    def is_restart(self) -> bool:
        return self.epoch > 1


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
        fields: dict[Field, str | int] = {
            Field.MODEL: params.model,
            Field.PRIORITY: params.priority,
            Field.PARAMS: params.model_dump_json(),
            Field.ROWS: params.rows_per_image,
            Field.RETRY_OF: retry_of,
        }
        if trace := self._traceparent():
            fields[Field.TRACE] = trace
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
        outcome = reply[0].decode()
        if outcome == "full":
            raise await self._refusal(params.model, num_jobs=reply[1], work=reply[2])
        if outcome == "share":
            seconds = retry_after(reply[2], await self.fleet(params.model))
            message = f"{reply[1]} jobs of {tenant.name} wait or run already, which is its share of the queue"
            raise QueueShareFull(message, retry_after=seconds)
        if outcome == "conflict":
            raise IdempotencyConflict("this Idempotency-Key was used for another request", field="Idempotency-Key")
        if outcome == "replayed":
            return Submitted(reply[1].decode(), is_replay=True)
        return Submitted(job_id, is_replay=False)

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
        """Ids of a model's jobs that wait or run, by priority, the oldest first."""
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


class WorkerQueue:
    """What one worker does with one model's jobs."""

    def __init__(
        self, connection: RedisConnection, settings: Settings, worker: str, model: str, model_hash: str = ""
    ) -> None:
        """`model_hash` tells apart models of one name: a job is never gone on with by another one than began it."""
        self.model = model
        self._connection = connection
        self._settings = settings
        self._worker = worker
        self._model_hash = model_hash
        self._streams = keys.queues(model)
        self.concluded: Counter[str] = Counter()  # jobs that ended instead of beginning: canceled, late, worn_out

    async def open(self) -> None:
        """Makes the consumer groups, reading from the start: jobs may have come before the first worker."""
        for stream in self._streams:
            try:
                await self._connection.again("XGROUP", "CREATE", stream, keys.GROUP, "0", "MKSTREAM")
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    async def unfinished(self) -> list[Taken]:
        """All jobs that were given to this worker, the oldest of the highest priority first."""
        words = ("XREADGROUP", "GROUP", keys.GROUP, self._worker, "COUNT", 1000, "STREAMS")
        replies = await self._connection.again_many([(*words, stream, "0") for stream in self._streams])
        return [
            Taken(entry, job_id, priority)
            for priority, reply in zip(keys.PRIORITIES, replies)
            for entry, job_id in _entries(reply)
        ]

    async def take(self, block_seconds: float) -> Taken | None:
        """The next job, waiting for one at most `block_seconds`. Not repeated when Redis fails.

        First come jobs that other workers let go of or handed back, then the one whose turn it is.
        """
        taken = await self._take()
        if isinstance(taken, Taken):
            return taken
        words = ("XREAD", "COUNT", 1, "BLOCK", max(1, int(block_seconds * 1000)), "STREAMS", *self._streams, *taken)
        if await self._connection.block(block_seconds, *words) is None:
            return None
        taken = await self._take()
        return taken if isinstance(taken, Taken) else None

    async def _take(self) -> Taken | list[str]:
        """A job, or the streams' cursors to wait behind."""
        lease, aging = self._settings.lease_seconds, self._settings.priority_aging_seconds
        args = (keys.GROUP, self._worker, milliseconds(lease), milliseconds(aging))
        reply = await scripts.run_once(self._connection, "take", self._streams, args)
        if not reply[0]:
            return [cursor.decode() for cursor in reply[1:]]
        return Taken(reply[0].decode(), reply[1].decode(), keys.PRIORITIES[int(reply[2]) - 1])

    async def claim(self, taken: Taken) -> Claim | None:
        """Begins a job; None when it ended meanwhile, is too late, was canceled or begun too often."""
        reply = await scripts.run(
            self._connection,
            "claim",
            [*job_keys(taken.job_id, self.model, taken.priority), keys.DEAD],
            [
                *(keys.GROUP, self._worker, taken.nonce, taken.entry, self._settings.max_attempts),
                *lifetimes(self._settings),
                *(LATE.body(), WORN_OUT.body()),
                *(self._model_hash, self._settings.dead_length, WORN_OUT.error.code),
            ],
        )
        if reply[0] != b"claimed":
            self.concluded.update(word.decode() for word in reply[2:])
            return None
        return Claim(
            job_id=taken.job_id,
            model=self.model,
            epoch=int(reply[1]),
            attempt=int(reply[2]),
            seq=int(reply[3]),
            age=int(reply[4]) / 1000,
            base=int(reply[5]),
            is_anew=reply[6] == 1,
            params=GenerationParams.model_validate_json(reply[7]),
        )

    async def traceparent(self, job_id: str) -> str:
        """Of the request that submitted the job; empty where traces were not asked for."""
        trace: bytes | None = await self._connection.again("HGET", keys.job(job_id), Field.TRACE)
        return (trace or b"").decode()

    def release_call(self, claim: Claim) -> scripts.Call:
        """Hands the job back, to be taken next. Answers 1, or -1 when lost."""
        args = (self._worker, claim.epoch, keys.GROUP, keys.RELEASED)
        return scripts.Call(scripts.script("release"), _keys_of(claim), args)

    def renew_call(self, claim: Claim) -> scripts.Call:
        """Answers 0 go on, 1 cancel, 2 too late, or -1 lost."""
        args = (self._worker, claim.epoch, keys.GROUP)
        return scripts.Call(scripts.script("renew"), _keys_of(claim), args)

    def emit_call(self, claim: Claim, seq: int, events: Sequence[NewEvent]) -> scripts.Call:
        """Writes events after number `seq`. Answers [seq or -1 when lost, as `renew_call`]."""
        words = [word for event in events for word in event]
        args = (self._worker, claim.epoch, seq, *words)
        return scripts.Call(scripts.script("emit"), _keys_of(claim), args)

    def finish_call(self, claim: Claim, state: JobState, body: str, images: Sequence[bytes] = ()) -> scripts.Call:
        """Ends the job with its terminal event and its PNGs. Answers 1, or -1 when lost."""
        pictures = [keys.image(claim.job_id, index) for index in range(len(images))]
        args = (self._worker, claim.epoch, keys.GROUP, state.value, body, *lifetimes(self._settings), *images)
        return scripts.Call(scripts.script("finish"), [*_keys_of(claim), *pictures], args)


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


def _keys_of(claim: Claim) -> list[str]:
    return job_keys(claim.job_id, claim.model, claim.priority)


def lifetimes(settings: Settings) -> tuple[int, int]:
    return milliseconds(settings.result_ttl), milliseconds(settings.result_ttl + settings.tombstone_ttl)


def milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


def _entries(streams: list[Any] | None) -> list[tuple[str, str]]:
    """(entry, job id) pairs of an XREADGROUP reply over one stream.

    Entries that were deleted while they were pending come with no fields; their job id is empty.
    """
    pairs: list[tuple[str, str]] = []
    for item in streams[0][1] if streams else ():
        if item is not None:
            entry, words = cast("tuple[bytes, list[bytes] | None]", item)
            pairs.append((entry.decode(), words[1].decode() if words else ""))
    return pairs
