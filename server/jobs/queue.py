"""The queue from both sides: `JobQueue` for who submits, `WorkerQueue` for who takes."""

import hashlib
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, cast

from redis.exceptions import ResponseError

from server.errors import IdempotencyConflict, JobExpired, JobNotFound, QueueFull
from server.jobs import keys, scripts
from server.jobs.connection import RedisConnection
from server.jobs.job import Job, JobState
from server.jobs.keys import Field
from server.schemas.events import Failed
from server.schemas.generation import Failure, GenerationParams
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
    waiting_ahead: int | None  # None when the job does not wait
    work_ahead: int  # row-steps


@dataclass(frozen=True)
class Claim:
    """A job that this worker runs. `epoch` fences what it writes; `seq` is the number of the latest event."""

    job_id: str
    model: str
    epoch: int
    attempt: int
    seq: int
    age: float  # seconds since it was submitted
    params: GenerationParams

    @property
    def is_restart(self) -> bool:
        return self.epoch > 1


class JobQueue:
    """What the API does with jobs."""

    def __init__(self, connection: RedisConnection, settings: Settings) -> None:
        self._connection = connection
        self._settings = settings

    async def submit(
        self, params: GenerationParams, idempotency: Idempotency | None = None, source: bytes | None = None
    ) -> Submitted:
        """Accepts a job, with the `source` PNG of an edit. Raises QueueFull, IdempotencyConflict or RedisUnavailable;
        never enqueues twice."""
        job_id = f"gen-{uuid.uuid4().hex}"
        fields = {
            Field.MODEL: params.model,
            Field.PRIORITY: keys.DEFAULT_PRIORITY,
            Field.PARAMS: params.model_dump_json(),
            Field.WORK: params.n * params.steps * params.rows_per_image,
        }
        if source is not None:
            fields[Field.SOURCE] = keys.source(job_id)
            await self._connection.again("SET", keys.source(job_id), source, "PX", SOURCE_SUBMIT_MS)
        reply = await scripts.run(
            self._connection,
            "submit",
            [*job_keys(job_id, params.model), keys.idempotency(idempotency.key if idempotency else "")],
            [
                job_id,
                self._settings.queue_depth,
                _milliseconds(self._settings.job_deadline),
                idempotency.fingerprint if idempotency else "",
                _milliseconds(self._settings.idempotency_ttl),
                *chain.from_iterable(fields.items()),
            ],
        )
        return self._submitted(job_id, reply)

    def _submitted(self, job_id: str, reply: list[Any]) -> Submitted:
        outcome = reply[0].decode()
        if outcome == "full":
            raise QueueFull(f"{reply[1]} jobs wait or run already", retry_after=1)
        if outcome == "conflict":
            raise IdempotencyConflict("this Idempotency-Key was used for another request", field="Idempotency-Key")
        if outcome == "replayed":
            return Submitted(reply[1].decode(), is_replay=True)
        return Submitted(job_id, is_replay=False)

    async def load(self, job_id: str) -> Job:
        """Raises JobExpired when the job is past its keeping time, JobNotFound when it never was."""
        reply: list[bytes] = await self._connection.again("HGETALL", keys.job(job_id))
        if reply:
            words = [word.decode() for word in reply]
            return Job.from_hash(job_id, dict(zip(words[::2], words[1::2])))
        state: bytes | None = await self._connection.again("GET", keys.tombstone(job_id))
        if state is not None:
            raise JobExpired(f"job {job_id[:80]} was {state.decode()} and is no longer kept")
        raise JobNotFound(f"there is no job {job_id[:80]!r}")

    async def cancel(self, job: Job) -> JobState:
        """Ends a waiting job at once and tells a running job's worker. Returns the state afterwards."""
        reply = await scripts.run(
            self._connection,
            "cancel",
            job_keys(job.id, job.params.model, job.priority),
            [keys.GROUP, keys.CONTROL_PREFIX, *_lifetimes(self._settings), job.id],
        )
        if not reply:
            raise JobExpired(f"job {job.id} is no longer kept")
        return JobState(reply.decode())

    async def place(self, job: Job) -> Place:
        reply = await scripts.run(
            self._connection, "position", [keys.job(job.id), keys.queue(job.params.model, job.priority)], [keys.GROUP]
        )
        return Place(None if reply[0] < 0 else int(reply[0]), int(reply[1]))

    async def depth(self, model: str) -> int:
        """Jobs of a model that wait or run."""
        return int(await self._connection.again("XLEN", keys.queue(model)))


class WorkerQueue:
    """What one worker does with one model's jobs."""

    def __init__(self, connection: RedisConnection, settings: Settings, worker: str, model: str) -> None:
        self.model = model
        self._connection = connection
        self._settings = settings
        self._worker = worker
        self._stream = keys.queue(model)

    async def open(self) -> None:
        """Makes the consumer group, reading from the start: jobs may have come before the first worker."""
        try:
            await self._connection.again("XGROUP", "CREATE", self._stream, keys.GROUP, "0", "MKSTREAM")
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def unfinished(self) -> list[tuple[str, str]]:
        """(entry, job id) of all jobs that this worker held when it died, oldest first."""
        words = ("XREADGROUP", "GROUP", keys.GROUP, self._worker, "COUNT", 1000, "STREAMS", self._stream, "0")
        return _entries(await self._connection.again(*words))

    async def take(self, block_seconds: float) -> tuple[str, str] | None:
        """The next (entry, job id), waiting for one at most `block_seconds`. Not repeated when Redis fails."""
        words = ("XREADGROUP", "GROUP", keys.GROUP, self._worker, "COUNT", 1)
        block = ("BLOCK", max(1, int(block_seconds * 1000)))
        reply = await self._connection.block(block_seconds, *words, *block, "STREAMS", self._stream, ">")
        return next(iter(_entries(reply)), None)

    async def take_over(self) -> tuple[str, str] | None:
        """An (entry, job id) whose worker let its lease run out or handed it back."""
        idle = _milliseconds(self._settings.lease_seconds)
        words = ("XAUTOCLAIM", self._stream, keys.GROUP, self._worker, idle, "0-0", "COUNT", 1)
        reply = await self._connection.again(*words)
        return next(iter(_items(reply[1])), None)

    async def claim(self, entry: str, job_id: str) -> Claim | None:
        """Begins a job; None when it ended meanwhile, is too late, was canceled or begun too often."""
        nonce = secrets.token_hex(8)
        reply = await scripts.run(
            self._connection,
            "claim",
            job_keys(job_id, self.model),
            [
                *(keys.GROUP, self._worker, nonce, entry, self._settings.max_attempts),
                *_lifetimes(self._settings),
                *(LATE.body(), WORN_OUT.body()),
            ],
        )
        if reply[0] != b"claimed":
            return None
        return Claim(
            job_id=job_id,
            model=self.model,
            epoch=int(reply[1]),
            attempt=int(reply[2]),
            seq=int(reply[3]),
            age=int(reply[4]) / 1000,
            params=GenerationParams.model_validate_json(reply[5]),
        )

    async def release(self, claim: Claim) -> None:
        args = (self._worker, claim.epoch, keys.GROUP, keys.RELEASED)
        await scripts.run(self._connection, "release", job_keys(claim.job_id, claim.model), args)

    def renew_call(self, claim: Claim) -> scripts.Call:
        """Answers 0 go on, 1 cancel, 2 too late, -1 lost."""
        args = (self._worker, claim.epoch, keys.GROUP)
        return scripts.Call(scripts.script("renew"), job_keys(claim.job_id, claim.model), args)

    def emit_call(self, claim: Claim, seq: int, events: Sequence[tuple[str, str]]) -> scripts.Call:
        """Writes (type, body) events after number `seq`. Answers [seq or -1 when lost, 1 when to cancel]."""
        words = [word for event in events for word in event]
        args = (self._worker, claim.epoch, seq, *words)
        return scripts.Call(scripts.script("emit"), job_keys(claim.job_id, claim.model), args)

    def finish_call(self, claim: Claim, state: JobState, body: str, images: Sequence[bytes] = ()) -> scripts.Call:
        """Ends the job with its terminal event and its PNGs. Answers 1, or -1 when lost."""
        pictures = [keys.image(claim.job_id, index) for index in range(len(images))]
        args = (self._worker, claim.epoch, keys.GROUP, state.value, body, *_lifetimes(self._settings), *images)
        return scripts.Call(scripts.script("finish"), [*job_keys(claim.job_id, claim.model), *pictures], args)


def job_keys(job_id: str, model: str, priority: str = keys.DEFAULT_PRIORITY) -> list[str]:
    return [keys.job(job_id), keys.events(job_id), keys.queue(model, priority), keys.tombstone(job_id)]


def _lifetimes(settings: Settings) -> tuple[int, int]:
    return _milliseconds(settings.result_ttl), _milliseconds(settings.result_ttl + settings.tombstone_ttl)


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


def _entries(streams: list[Any] | None) -> list[tuple[str, str]]:
    """(entry, job id) pairs of an XREADGROUP reply over one stream."""
    return _items(streams[0][1]) if streams else []


def _items(items: list[Any]) -> list[tuple[str, str]]:
    """Entries that were deleted while they were pending come with no fields; their job id is empty."""
    pairs: list[tuple[str, str]] = []
    for item in items:
        if item is not None:
            entry, words = cast("tuple[bytes, list[bytes] | None]", item)
            pairs.append((entry.decode(), words[1].decode() if words else ""))
    return pairs
