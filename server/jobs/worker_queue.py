"""The queue from the side of a worker: jobs are taken, claimed, written about and ended, every write behind a fence."""

import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, cast

from redis.exceptions import ResponseError

from oar_wire.job import GenerationParams
from oar_wire.tenant import OPEN_TENANT
from server.jobs import keys, scripts
from server.jobs.connection import RedisConnection, is_refusal, unavailable
from server.jobs.job import JobState
from server.jobs.keys import Field
from server.jobs.lease import LeaseWatch
from server.jobs.log import LATE, LOST, WORN_OUT, Claim, Kept, NewEvent
from server.jobs.queue import job_keys, lifetimes, milliseconds
from server.settings import Settings

OUTPUTS_KEY, VALUES_KEY = 7, 8  # of the script `keep`
MOST_HELD = 10_000  # entries of one queue that are watched


@dataclass(frozen=True)
class Taken:
    """A queue's entry that was given to this worker. `nonce` makes a claim that is repeated one claim."""

    entry: str
    job_id: str
    priority: str
    nonce: str = field(default_factory=lambda: secrets.token_hex(8))


class WorkerQueue:
    """What one worker does with one model's jobs."""

    def __init__(
        self,
        connection: RedisConnection,
        settings: Settings,
        worker: str,
        model: str,
        model_hash: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`model_hash` tells apart models of one name: a job is never gone on with by another one than began it.

        `clock` counts monotonic seconds; leases of other workers are judged by it.
        """
        self.model = model
        self._connection = connection
        self._settings = settings
        self._worker = worker
        self._model_hash = model_hash
        self._streams = keys.queues(model)
        # Twice the time between two looks: one that came late counts, Redis' absence does not.
        self.leases = LeaseWatch(settings.lease_seconds, max_gap=2 * settings.heartbeat_seconds, clock=clock)
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

    async def observe(self) -> None:
        """Reads which entries other workers hold, and how often they renewed; to be called at each heartbeat.

        Raises RedisUnavailable.
        """
        asked_at = self.leases.clock()
        words = [("XPENDING", stream, keys.GROUP, "-", "+", MOST_HELD) for stream in self._streams]
        replies = await self._connection.retry(lambda: self._connection.pipeline(words))
        stamps: dict[str, str] = {}
        for index, reply in enumerate(replies, 1):
            if isinstance(reply, Exception):
                if "NOGROUP" in str(reply):
                    continue  # nobody can hold anything
                is_refused = isinstance(reply, ResponseError) and is_refusal(reply)
                raise unavailable(reply) if is_refused else reply
            for entry, holder, _, renewals in reply:
                if holder.decode() not in (self._worker, keys.RELEASED):
                    stamps[f"{index} {entry.decode()}"] = f"{holder.decode()} {renewals}"
        self.leases.observe(stamps, asked_at)

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
        aging = milliseconds(self._settings.priority_aging_seconds)
        dead = chain.from_iterable((*key.split(), stamp) for key, stamp in self.leases.dead().items())
        args = (keys.GROUP, self._worker, keys.RELEASED, aging, *dead)
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
            tenant=reply[8].decode() or OPEN_TENANT,
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

    def keep_call(self, claim: Claim, kept: Sequence[Kept]) -> scripts.Call:
        """Stores what events speak of. Answers 1, or -1 when lost."""
        numbers = [(OUTPUTS_KEY if item.is_output else VALUES_KEY, item.field, item.data) for item in kept]
        names = [*_keys_of(claim), keys.outputs(claim.job_id), keys.values(claim.job_id)]
        args = (self._worker, claim.epoch, *chain.from_iterable(numbers))
        return scripts.Call(scripts.script("keep"), names, args)

    def finish_call(self, claim: Claim, state: JobState, body: str, images: Sequence[bytes] = ()) -> scripts.Call:
        """Ends the job with its terminal event and its PNGs. Answers 1, or -1 when lost."""
        pictures = [keys.image(claim.job_id, index) for index in range(len(images))]
        args = (self._worker, claim.epoch, keys.GROUP, state.value, body, *lifetimes(self._settings), *images)
        return scripts.Call(scripts.script("finish"), [*_keys_of(claim), *pictures], args)

    async def end_lost(self, claim: Claim, seq: int, age: float) -> bool:
        """Ends a job as failed if Redis knows nothing of it any more. `seq` numbers the terminal event; nobody has seen
        a higher one. False where Redis knows of it. Raises RedisUnavailable."""
        fields: dict[str, str | int] = {
            "id": claim.job_id,
            Field.MODEL: claim.model,
            Field.TENANT: claim.tenant,
            Field.PRIORITY: claim.priority,
            Field.PARAMS: claim.params.model_dump_json(),
            Field.ATTEMPTS: claim.attempt,
            Field.EPOCH: claim.epoch,
        }
        args = (seq, LOST.body(), milliseconds(age), keys.GROUP, *lifetimes(self._settings))
        words = (*args, *chain.from_iterable(fields.items()))
        return await scripts.run(self._connection, "lost", _keys_of(claim), words) == 1


def _keys_of(claim: Claim) -> list[str]:
    return job_keys(claim.job_id, claim.model, claim.priority)


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
