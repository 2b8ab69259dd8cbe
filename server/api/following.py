"""A job's events as they come: what the websocket and the event streams both tell."""

from collections.abc import AsyncGenerator

from server.api.deps import Services
from server.errors import InvalidRequest
from server.jobs.events import StoredEvent
from server.jobs.job import Job


async def follow(services: Services, job: Job, after: int, silence: float) -> AsyncGenerator[list[StoredEvent]]:
    """Batches of the events numbered above `after`, oldest first, up to the terminal one.

    An empty batch tells of `silence` seconds without an event. To be closed by who stops early. Raises JobExpired,
    RedisUnavailable.
    """
    seq = min(after, job.seq)
    async with services.hub.watch(job.id, seq):
        while True:
            batch = await services.log.read(job.id, seq)
            if batch:
                yield batch
                seq = batch[-1].seq
                if batch[-1].is_terminal:
                    return
            elif await _is_over(services, job.id, seq):
                return
            elif not await services.hub.wait(job.id, seq, silence):
                yield []


async def _is_over(services: Services, job_id: str, seq: int) -> bool:
    """Whether `seq` is the terminal event or beyond it: there is nothing to wait for."""
    job = await services.queue.load(job_id)
    return job.state.is_terminal and seq >= job.seq


def parse_seq(text: str, field: str) -> int:
    """Raises InvalidRequest."""
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise InvalidRequest("invalid_after", f"{field} is the seq of an event", field=field)
    return int(text)
