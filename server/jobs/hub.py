"""Wakes readers of event logs: one reader of the activity stream per process, however many logs are watched.

A script that writes to an event log also adds the job's id to the short stream `news`. So a process reads that one
stream, and of the logs only those that have something new: what it costs is by the events that are written, not by the
jobs that wait while somebody watches. While nobody does, it reads nothing.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from oar_wire.errors import JobLost, RedisUnavailable
from server.jobs import keys
from server.jobs.activity import ActivityStream
from server.jobs.connection import UNREACHABLE, RedisConnection
from server.jobs.events import StoredEvent, stored_event
from server.jobs.keys import Field
from server.jobs.shared_reads import SharedReads

logger = logging.getLogger(__name__)

ENDING_SECONDS = 5.0  # that workers have to end their jobs when Redis has lost its data
MOST_LOGS = 128  # of one read
PAUSE_PER_LOG = 5e-5  # seconds; where many logs are watched, what is new in several is read at a time
LEAST_PAUSE, MOST_PAUSE = 0.001, 0.01  # jobs that nobody watches here write to it too
MOST_LATEST = 64  # events of a log that are held


@dataclass
class _Watched:
    seq: int  # the newest number that is known
    changed: asyncio.Event
    watchers: int = 0
    latest: Sequence[StoredEvent] = ()  # all events of the latest read, up to `seq`
    latest_after: int = -1
    is_lost: bool = False  # Redis has lost its data, and the job with it

    def notify(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def advance(self, after: int, events: Sequence[StoredEvent]) -> None:
        """Takes the events that were read above the number `after`."""
        newest = events[-1].seq
        if newest <= self.seq:
            return
        # Where a number is missing, the log has to tell whether it was a preview.
        is_whole = len(events) == newest - after
        self.latest = events if is_whole and len(events) <= MOST_LATEST else ()
        self.latest_after, self.seq = after, newest
        self.notify()


class EventHub:
    """Tells readers that there is more. Those that have kept up find it in the latest read, which is all that is held
    here; others fetch from their own place in the log as fast as their clients take it. So a slow client costs no
    memory, and nothing can be skipped.
    """

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._watched: dict[str, _Watched] = {}
        self._is_watched = asyncio.Event()
        self._activity = ActivityStream(connection)
        self._is_down = False
        self._newest_seqs: SharedReads[str, int] = SharedReads(self._newest_seq)
        self._lost_at: float | None = None  # monotonic, when Redis had lost its data

    @property
    def num_watched(self) -> int:
        return len(self._watched)

    def note_loss(self) -> None:
        """Redis has lost its data. Whoever watches a job that is gone is told, after its worker had time to end it."""
        self._lost_at = time.monotonic()
        self._is_down = False
        self._activity.forget()

    @asynccontextmanager
    async def watch(self, job_id: str, after: int) -> AsyncGenerator[None]:
        """Keeps a log watched while a reader goes through it. Raises RedisUnavailable."""
        watched = self._watched.setdefault(job_id, _Watched(after, asyncio.Event()))
        watched.watchers += 1
        self._is_watched.set()
        try:
            # What is written from now on is in the stream; what was written before may not be.
            seq = await self._newest_seqs.get(job_id)
            self._is_down = False
            if seq > watched.seq:
                watched.seq = seq
                watched.notify()
            yield
        finally:
            watched.watchers -= 1
            if not watched.watchers:
                del self._watched[job_id]
            if not self._watched:
                self._is_watched.clear()

    async def _newest_seq(self, job_id: str) -> int:
        return int(await self._connection.again("HGET", keys.job_key(job_id), Field.SEQ) or 0)

    async def wait(self, job_id: str, after: int, timeout: float) -> bool:
        """Waits inside `watch` until there is an event with a number above `after`; False after `timeout` seconds.

        Raises RedisUnavailable when Redis went away meanwhile, JobLost when it has lost its data and the job with it.
        """
        watched = self._watched[job_id]
        deadline = asyncio.get_running_loop().time() + timeout
        while watched.seq <= after:
            if watched.is_lost:
                raise JobLost("Redis has lost its data, and this job with it; submit it again", retry_after=2)
            if self._is_down:
                raise RedisUnavailable("the event log cannot be reached", retry_after=2)
            remaining = deadline - asyncio.get_running_loop().time()
            if remaining <= 0:
                return False
            try:
                async with asyncio.timeout(remaining):
                    await watched.changed.wait()
            except TimeoutError:
                return False
        return True

    def latest(self, job_id: str, after: int) -> Sequence[StoredEvent]:
        """Events above `after`, inside `watch`, as `EventLog.read` gives them, where the latest read began there."""
        watched = self._watched[job_id]
        return watched.latest if watched.latest_after == after else ()

    async def run(self) -> None:
        """Reads the activity stream; runs until it is cancelled."""
        while True:
            await self._is_watched.wait()
            try:
                found = await self._activity.read()
                if found is None:
                    await self._find_lost()
                await self._look(tuple(self._watched) if found is None else found & self._watched.keys())
                self._is_down = False
                await asyncio.sleep(min(MOST_PAUSE, max(LEAST_PAUSE, len(self._watched) * PAUSE_PER_LOG)))
            except (*UNREACHABLE, RedisError, RedisUnavailable) as error:
                logger.warning("event hub: %s", error)
                self._is_down = True
                self._activity.forget()
                self._notify_all()
                await asyncio.sleep(0.5)

    async def _find_lost(self) -> None:
        """Marks the watched jobs that went with the data, once their workers had time to end them."""
        if self._lost_at is None or time.monotonic() < self._lost_at + ENDING_SECONDS:
            return
        self._lost_at = None
        job_ids = tuple(self._watched)
        found = await self._connection.again_many([("EXISTS", keys.job_key(job_id)) for job_id in job_ids])
        for job_id, is_there in zip(job_ids, found):
            watched = self._watched.get(job_id)
            if watched is not None and not is_there:
                watched.is_lost = True
                watched.notify()

    async def _look(self, job_ids: Collection[str]) -> None:
        """Reads what is new in these logs."""
        for part in _parts(tuple(job_ids)):
            watched = {job_id: self._watched[job_id].seq for job_id in part if job_id in self._watched}
            if watched:
                await self._read(watched)

    async def _read(self, watched: dict[str, int]) -> None:
        """`watched` tells the newest number that is known of each."""
        streams = [key for job_id in watched for key in (keys.events_key(job_id), keys.previews_key(job_id))]
        cursors = [f"{seq}-0" for seq in watched.values() for _ in range(2)]
        replies: list[Any] = await self._connection.again("XREAD", "STREAMS", *streams, *cursors) or []
        found: defaultdict[str, list[StoredEvent]] = defaultdict(list)
        for name, items in replies:
            job_id = name.decode().partition(":")[2]
            found[job_id] += (stored_event(job_id, entry, fields) for entry, fields in items)
        for job_id, events in found.items():
            if job_id in self._watched:
                self._watched[job_id].advance(watched[job_id], sorted(events, key=lambda event: event.seq))

    def _notify_all(self) -> None:
        for watched in self._watched.values():
            watched.notify()


def _parts(job_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(job_ids), MOST_LOGS):
        yield job_ids[start : start + MOST_LOGS]
