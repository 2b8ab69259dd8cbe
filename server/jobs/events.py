"""The event log of each job.

All events of a job are counted together, 1, 2, 3 ... Previews are nearly all of its bytes and each makes the one before
worthless, so only the newest of each image is kept, in a stream of its own; the number of one that was replaced is not
used again. What a reader gets therefore grows in `seq`, and a number that is missing was a preview; no other event is
ever missing. A job of n images needs at most n previews' memory for them, however long it runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from oar_wire.events import EVENTS, TERMINAL_TYPES, Event
from server.jobs import keys
from server.jobs.connection import RedisConnection
from server.jobs.shared_reads import SharedReads


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
        return self._json

    @cached_property
    def _json(self) -> str:
        """Made once for all who watch the job."""
        head = f'{{"type":"{self.type}","seq":{self.seq},"job_id":"{self.job_id}","at":{self.at:.3f}'
        return f"{head}}}" if self.body == "{}" else f"{head},{self.body[1:]}"

    def parse(self) -> Event:
        return EVENTS.validate_json(self.to_json())


class EventLog:
    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._reads: SharedReads[tuple[str, int, int], Sequence[StoredEvent]] = SharedReads(self._read)

    async def read(self, job_id: str, after: int = 0, count: int = 64) -> Sequence[StoredEvent]:
        """Reads up to `count` events with a number above `after`, and the previews between them; returns at once.

        Readers who are at the same place share one read.
        """
        return await self._reads.get((job_id, after, count))

    async def _read(self, place: tuple[str, int, int]) -> list[StoredEvent]:
        job_id, after, count = place
        behind = (f"({after}-0", "+")
        replies = await self._connection.again_many(
            [
                ("XRANGE", keys.previews_key(job_id), *behind),
                ("XRANGE", keys.events_key(job_id), *behind, "COUNT", count),
            ]
        )
        # Whatever was numbered before one of these previews was in the log when it was read, which was afterwards.
        previews, events = ([stored_event(job_id, entry, fields) for entry, fields in reply] for reply in replies)
        if len(events) == count:
            previews = [preview for preview in previews if preview.seq < events[-1].seq]
        return sorted((*previews, *events), key=lambda event: event.seq)

    async def read_all(self, job_id: str) -> list[StoredEvent]:
        events: list[StoredEvent] = []
        while batch := await self.read(job_id, events[-1].seq if events else 0, count=256):
            events += batch
        return events

    async def read_checkpoint(self, job_id: str, after: int = 0) -> list[StoredEvent]:
        """Reads what a resumed job goes on from: its `patches` or `frame`s, what was `revised`, and the `partial`
        images that need not be made again."""
        reply: list[Any] = await self._connection.again("XRANGE", keys.events_key(job_id), f"({after}-0", "+")
        stored = (stored_event(job_id, entry, fields) for entry, fields in reply)
        return [event for event in stored if event.type in {"patches", "revised", "frame", "partial"}]


def stored_event(job_id: str, entry: bytes, words: list[bytes]) -> StoredEvent:
    fields = dict(zip(words[::2], words[1::2]))
    seq = int(entry.partition(b"-")[0])
    at = int(fields[b"at"]) / 1000
    return StoredEvent(job_id, seq, fields[b"type"].decode(), at, fields[b"body"].decode())
