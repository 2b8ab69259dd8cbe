"""The queue from the side of a worker: jobs are taken and claimed; `job_calls` writes about them."""

import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from redis.exceptions import ResponseError

from oar_wire.job import GenerationParams
from oar_wire.tenant import OPEN_TENANT
from server.jobs import keys, scripts
from server.jobs.connection import RedisConnection, is_refusal, unavailable
from server.jobs.durations import lifetimes, milliseconds
from server.jobs.job_calls import JobCalls
from server.jobs.lease import LeaseWatch
from server.jobs.log import LATE, WORN_OUT, Claim
from server.settings import Settings

MOST_HELD = 10_000  # entries of one queue that are watched


@dataclass(frozen=True)
class Taken:
    """A queue's entry that was given to this worker. `nonce` makes a claim that is repeated one claim."""

    entry: str
    job_id: str
    priority: str
    nonce: str = field(default_factory=lambda: secrets.token_hex(8))


class WorkerQueue:
    """Queue of one model as one worker uses it."""

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
        self._streams = keys.queue_keys(model)
        # Twice the time between two looks: one that came late counts, Redis' absence does not.
        self.leases = LeaseWatch(settings.lease_seconds, max_gap=2 * settings.heartbeat_seconds, clock=clock)
        self.calls = JobCalls(settings, worker)  # for the jobs that it has claimed
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
        places = ((*key.split(), stamp) for key, stamp in self.leases.dead().items())
        dead = [{"index": int(index), "entry": entry, "stamp": stamp} for index, entry, stamp in places]
        args = {"worker": self._worker, "aging_ms": aging, "dead": dead}
        reply = await scripts.run_once(self._connection, "take", self._streams, args)
        if not reply[0]:
            return [cursor.decode() for cursor in reply[1:]]
        return Taken(reply[0].decode(), reply[1].decode(), keys.PRIORITIES[int(reply[2]) - 1])

    async def claim(self, taken: Taken) -> Claim | None:
        """Begins a job; None when it ended meanwhile, is too late, was canceled or begun too often."""
        reply = await scripts.run(
            self._connection,
            "claim",
            [*keys.job_keys(taken.job_id, self.model, taken.priority), keys.DEAD],
            {
                "worker": self._worker,
                "nonce": taken.nonce,
                "entry": taken.entry,
                "max_attempts": self._settings.max_attempts,
                "late": LATE.body(),
                "worn_out": WORN_OUT.body(),
                "reason": WORN_OUT.error.code,
                "model_hash": self._model_hash,
                "dead_length": self._settings.dead_length,
                **lifetimes(self._settings),
            },
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
            begins_again=reply[6] == 1,
            params=GenerationParams.model_validate_json(reply[7]),
            tenant=reply[8].decode() or OPEN_TENANT,
        )


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
