"""A load on a server through its public surface: HTTP submit, then the job's websocket to its end."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from oar_client import AsyncClient, OarError, Patches, Patience
from oar_lab.bench.server.traffic import Wish

REFUSED = "refused"
COMPLETED = "completed"
TOO_MANY = 429


@dataclass
class LoadOutcome:
    """All that happened. Latencies are seconds from a request's arrival, of those that completed."""

    first_patch: list[float] = field(default_factory=list[float])
    total: list[float] = field(default_factory=list[float])
    ends: Counter[str] = field(default_factory=Counter[str])  # `completed`, `refused` (429), or an error's code
    last_arrival: float = 0.0  # seconds from the first one
    seconds: float = 0.0  # from the first arrival to the last end


@dataclass(frozen=True)
class Load:
    url: str
    api_key: str | None
    wanted: Sequence[Wish]
    concurrency: int | None = None  # most requests under way

    async def put(self, times: Sequence[float]) -> LoadOutcome:
        """Sends each wish at its time, in seconds from now, whatever became of those before. One that has to wait for
        others to end arrives when it is sent."""
        outcome = LoadOutcome(last_arrival=times[-1])
        gate = asyncio.Semaphore(self.concurrency or len(self.wanted))
        async with AsyncClient(self.url, api_key=self.api_key, patience=Patience.none()) as client:
            start = time.perf_counter()
            await asyncio.gather(
                *(_live(client, wish, start + due, gate, outcome) for wish, due in zip(self.wanted, times))
            )
            outcome.seconds = time.perf_counter() - start
        return outcome


async def _live(client: AsyncClient, wish: Wish, due: float, gate: asyncio.Semaphore, outcome: LoadOutcome) -> None:
    await asyncio.sleep(due - time.perf_counter())
    is_late = gate.locked()
    async with gate:
        arrived = time.perf_counter() if is_late else due
        try:
            end = await _follow(client, wish, arrived, outcome)
        except OarError as error:
            end = REFUSED if error.status == TOO_MANY else error.code
        outcome.ends[end] += 1


async def _follow(client: AsyncClient, wish: Wish, arrived: float, outcome: LoadOutcome) -> str:
    """The type of the job's last event."""
    job = await client.submit(wish.prompt, **wish.options)
    first, end = None, ""
    async with job.events() as events:
        async for event in events:
            if first is None and isinstance(event, Patches):
                first = time.perf_counter() - arrived
            end = event.type
    if end == COMPLETED and first is not None:
        outcome.first_patch.append(first)
        outcome.total.append(time.perf_counter() - arrived)
    return end
