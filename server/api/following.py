"""A job's events as they come: what the websocket and the event streams both tell."""

import json
import time
from collections.abc import AsyncGenerator
from dataclasses import replace

from oar_wire.errors import InvalidAfter
from server.api.deps import Services
from server.jobs.events import StoredEvent
from server.jobs.job import JobRecord

LINKING = {"frame", "completed"}  # types of events that name addresses
STALE_SECONDS = 0.25  # after which a preview that waits to be sent is looked up again


async def follow(services: Services, job: JobRecord, after: int, silence: float) -> AsyncGenerator[StoredEvent | None]:
    """The events numbered above `after`, oldest first, up to the terminal one; None tells of `silence` seconds.

    The log is read at the pace at which events are asked for; nothing is buffered beyond one batch. Who is slow misses
    previews that newer ones replaced, and nothing else. To be closed by who stops early. Raises JobExpired,
    RedisUnavailable.
    """
    seq = min(after, job.seq)
    async with services.hub.watch(job.id, seq):
        while not job.is_archived:
            batch = services.hub.latest(job.id, seq) or await services.log.read(job.id, seq)
            start = time.monotonic()
            for event in batch:
                if event.type == "preview" and time.monotonic() - start > STALE_SECONDS:
                    break  # the next batch has the newest one in its place
                yield _as_seen(event, services.root_path)
                seq = event.seq
                if event.is_terminal:
                    return
            # Whatever else there is, the hub knows of or will hear of: only who finds nothing has to ask why.
            if not batch:
                job = await services.load_job(job.id)
                if job.is_archived:
                    break  # it has left Redis before its client had read all of it
                if job.state.is_terminal and seq >= job.seq:
                    return
            if not await services.hub.wait(job.id, seq, silence):
                yield None
    for event in await services.results.events(job):
        if event.seq > seq:
            yield _as_seen(event, services.root_path)


def _as_seen(event: StoredEvent, root_path: str) -> StoredEvent:
    """Changes the links to those that this client has to call: the log holds them without a proxy's prefix."""
    if not root_path or event.type not in LINKING:
        return event
    body = json.loads(event.body)
    links = [body["output"]] if event.type == "frame" else [*body["images"], *body.get("outputs", ())]
    for link in links:
        link["url"] = root_path + link["url"]
    return replace(event, body=json.dumps(body))


def parse_seq(text: str, field: str) -> int:
    """Raises InvalidRequest."""
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise InvalidAfter(f"{field} is the seq of an event", field=field)
    return int(text)
