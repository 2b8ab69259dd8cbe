"""The event log of each job, and one blocking read per process that watches many logs.

All events of a job are counted together, 1, 2, 3 ... Previews are nearly all of its bytes and each makes the one before
worthless, so only the newest of each image is kept, in a stream of its own; the number of one that was replaced is not
used again. What a reader gets therefore grows in `seq`, and a number that is missing was a preview; no other event is
ever missing. A job of n images needs at most n previews' memory for them, however long it runs.
"""

import asyncio
import logging
import secrets
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from server.errors import RedisUnavailable
from server.jobs import keys
from server.jobs.connection import UNREACHABLE, RedisConnection
from server.schemas.events import EVENTS, TERMINAL_TYPES, Event

logger = logging.getLogger(__name__)

BLOCK_SECONDS = 5
WAKE_TTL_SECONDS = 3600
PAUSE_PER_LOG = 5e-5  # seconds; a hundred watched logs are read 200 times a second at most
MOST_PAUSE = 0.01
MOST_NEWS = 64  # events of a log that are held


@dataclass(frozen=True)
class StoredEvent:
    job_id: str
    seq: int
    type: str
    at: float  # Unix seconds by Redis' clock
    body: str  # JSON object of the event's own fields

    @property
    def is_terminal(self) -> bool:
        return self.type in TERMINAL_TYPES

    def to_json(self) -> str:
        head = f'{{"type":"{self.type}","seq":{self.seq},"job_id":"{self.job_id}","at":{self.at:.3f}'
        return f"{head}}}" if self.body == "{}" else f"{head},{self.body[1:]}"

    def parse(self) -> Event:
        return EVENTS.validate_json(self.to_json())


class EventLog:
    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    async def read(self, job_id: str, after: int = 0, count: int = 64) -> list[StoredEvent]:
        """Up to `count` events with a number above `after`, and the previews between them; returns at once."""
        behind = (f"({after}-0", "+")
        replies = await self._connection.again_many(
            [
                ("XRANGE", keys.previews(job_id), *behind),
                ("XRANGE", keys.events(job_id), *behind, "COUNT", count),
            ]
        )
        # Whatever was numbered before one of these previews was in the log when it was read, which was afterwards.
        previews, events = ([_stored(job_id, entry, fields) for entry, fields in reply] for reply in replies)
        if len(events) == count:
            previews = [preview for preview in previews if preview.seq < events[-1].seq]
        return sorted((*previews, *events), key=lambda event: event.seq)

    async def read_all(self, job_id: str, after: int = 0) -> list[StoredEvent]:
        events: list[StoredEvent] = []
        while batch := await self.read(job_id, events[-1].seq if events else after, count=256):
            events += batch
        return events

    async def read_checkpoint(self, job_id: str, after: int = 0) -> list[StoredEvent]:
        """What a resumed job goes on from: its `patches`, and the `partial` images that need not be made again."""
        reply: list[Any] = await self._connection.again("XRANGE", keys.events(job_id), f"({after}-0", "+")
        stored = (_stored(job_id, entry, fields) for entry, fields in reply)
        return [event for event in stored if event.type in {"patches", "partial"}]


@dataclass
class _Watched:
    seq: int  # the newest number that is known
    changed: asyncio.Event
    watchers: int = 0
    news: Sequence[StoredEvent] = ()  # all events of the latest read, up to `seq`
    news_after: int = -1


class EventHub:
    """Wakes who waits for a job's next event: one XREAD over all watched logs, not one connection for each.

    It tells that there is more. Readers that have kept up find it in the latest read, which is all that is held here;
    others fetch from their own place in the log as fast as their clients take it. So a slow client costs no memory, and
    nothing can be skipped.
    """

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._watched: dict[str, _Watched] = {}
        self._wake_key = keys.wake(secrets.token_hex(8))
        self._wake_cursor = "0-0"
        self._is_down = False

    @asynccontextmanager
    async def watch(self, job_id: str, after: int) -> AsyncGenerator[None]:
        """Keeps a log watched while a reader goes through it."""
        watched = self._watched.setdefault(job_id, _Watched(after, asyncio.Event()))
        watched.watchers += 1
        try:
            await self._wake()
            yield
        finally:
            watched.watchers -= 1
            if not watched.watchers:
                del self._watched[job_id]

    async def wait(self, job_id: str, after: int, timeout: float) -> bool:
        """Waits inside `watch` until there is an event with a number above `after`; False after `timeout` seconds.

        Raises RedisUnavailable when Redis went away meanwhile.
        """
        watched = self._watched[job_id]
        deadline = asyncio.get_running_loop().time() + timeout
        while watched.seq <= after:
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

    def news(self, job_id: str, after: int) -> Sequence[StoredEvent]:
        """Inside `watch`: the events above `after` as `EventLog.read` gives them, where the latest read began there."""
        watched = self._watched[job_id]
        return watched.news if watched.news_after == after else ()

    async def run(self) -> None:
        """The fan-in loop; runs until it is cancelled."""
        while True:
            try:
                await self._read_once()
                self._is_down = False
                # A read asks for every log: with many it waits, so that it finds the news of several at a time.
                await asyncio.sleep(min(MOST_PAUSE, len(self._watched) * PAUSE_PER_LOG))
            except (*UNREACHABLE, RedisError) as error:
                logger.warning("event fan-in: %s", error)
                self._is_down = True
                self._notify_all()
                await asyncio.sleep(0.5)

    async def _wake(self) -> None:
        await self._connection.again_many(
            [
                ("XADD", self._wake_key, "MAXLEN", 1, "*", "w", ""),
                ("EXPIRE", self._wake_key, WAKE_TTL_SECONDS),
            ]
        )

    async def _read_once(self) -> None:
        cursors = {
            key: f"{watched.seq}-0"
            for job_id, watched in self._watched.items()
            for key in (keys.events(job_id), keys.previews(job_id))
        }
        cursors[self._wake_key] = self._wake_cursor
        words = ("XREAD", "BLOCK", BLOCK_SECONDS * 1000, "STREAMS", *cursors, *cursors.values())
        streams: list[Any] = await self._connection.block(BLOCK_SECONDS, *words) or []
        found: defaultdict[str, list[StoredEvent]] = defaultdict(list)
        for name, items in streams:
            key = name.decode()
            if key == self._wake_key:
                self._wake_cursor = items[-1][0].decode()
            else:
                job_id = key.partition(":")[2]
                found[job_id] += (_stored(job_id, entry, fields) for entry, fields in items)
        for job_id, events in found.items():
            after = int(cursors[keys.events(job_id)].partition("-")[0])
            self._advance(job_id, after, sorted(events, key=lambda event: event.seq))

    def _advance(self, job_id: str, after: int, events: list[StoredEvent]) -> None:
        watched = self._watched.get(job_id)
        newest = events[-1].seq
        if watched is None or newest <= watched.seq:
            return
        # Where a number is missing, the log has to tell whether it was a preview: older servers answer with one of
        # the streams at a time.
        is_whole = len(events) == newest - after
        watched.news = events if is_whole and len(events) <= MOST_NEWS else ()
        watched.news_after, watched.seq = after, newest
        self._notify(watched)

    def _notify(self, watched: _Watched) -> None:
        watched.changed.set()
        watched.changed = asyncio.Event()

    def _notify_all(self) -> None:
        for watched in self._watched.values():
            self._notify(watched)


def _stored(job_id: str, entry: bytes, words: list[bytes]) -> StoredEvent:
    fields = dict(zip(words[::2], words[1::2]))
    seq = int(entry.partition(b"-")[0])
    at = int(fields[b"at"]) / 1000
    return StoredEvent(job_id, seq, fields[b"type"].decode(), at, fields[b"body"].decode())
