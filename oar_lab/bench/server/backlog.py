"""Measures whether a server is as fast with ten thousand jobs waiting as with ten."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from oar_client import AsyncClient
from oar_lab.bench.clock import Setting
from oar_lab.bench.server.processes import ServerProcesses
from oar_lab.bench.table import BenchReport, table
from server.jobs.connection import RedisConnection
from server.jobs.queue import JobQueue
from server.settings import Settings

AT_ONCE = 16  # submits under way
LOOK_SECONDS = 0.05  # between two looks at the queue
SETTLE_SECONDS = 2.0  # after the queue has been filled


@dataclass(frozen=True)
class BacklogRow:
    waiting: int
    submitted: float  # a second, to hold the queue at that length
    completed: float  # pictures a second
    relative: float  # to the first row
    cpu_seconds: dict[str, float]  # of each process, a completed picture


@dataclass(frozen=True)
class BacklogReport(BenchReport):
    model: str
    steps: int
    slots: int
    seconds: float  # at each depth
    rows: list[BacklogRow]
    setting: Setting

    def table(self) -> str:
        parts = sorted({part for row in self.rows for part in row.cpu_seconds})
        headers = (
            *("jobs waiting", "pictures/s", "relative", "submits/s"),
            *(f"{part} cpu ms a picture" for part in parts),
        )
        rows = (
            (r.waiting, r.completed, r.relative, r.submitted, *(1e3 * r.cpu_seconds.get(part, 0.0) for part in parts))
            for r in self.rows
        )
        return table(headers, rows)


@dataclass
class Backlog:
    """A queue that is held at a length: as soon as jobs have ended, as many new ones are submitted."""

    client: AsyncClient
    queue: JobQueue
    model: str
    prompt: str
    steps: int

    def __post_init__(self) -> None:
        self.submitted = 0
        self._seeds = count()

    async def length(self) -> int:
        """Jobs that wait or run."""
        return await self.queue.depth(self.model)

    async def ended(self) -> int:
        return self.submitted - await self.length()

    async def fill(self, wanted: int) -> None:
        missing = wanted - await self.length()
        for start in range(0, missing, AT_ONCE):
            await asyncio.gather(*(self._submit() for _ in range(min(AT_ONCE, missing - start))))

    async def hold(self, wanted: int, seconds: float) -> int:
        """Counts jobs that ended within about that time, or until the first one did."""
        before, end = await self.ended(), time.monotonic() + seconds
        while time.monotonic() < end or await self.ended() == before:
            await self.fill(wanted)
            await asyncio.sleep(LOOK_SECONDS)
        return await self.ended() - before

    async def _submit(self) -> None:
        await self.client.submit(
            self.prompt, model=self.model, seed=next(self._seeds), steps=self.steps, order="random", previews=False
        )
        self.submitted += 1


async def measure_backlog(
    url: str,
    redis_url: str,
    processes: ServerProcesses,
    *,
    model: str,
    depths: Sequence[int],
    steps: int,
    slots: int,
    seconds: float,
) -> list[BacklogRow]:
    """One row a depth, ascending. The server is one's own and nobody else submits."""
    connection = RedisConnection(redis_url)
    try:
        async with AsyncClient(url) as client:
            prompt = (await client.model(model)).example_prompts[0]
            backlog = Backlog(client, JobQueue(connection, Settings.model_validate({})), model, prompt, steps)
            rows: list[BacklogRow] = []
            for depth in depths:
                first = rows[0].completed if rows else None
                rows.append(await _row(backlog, processes, depth, depth + slots // 2, seconds, first))
            return rows
    finally:
        await connection.close()


async def _row(
    backlog: Backlog, processes: ServerProcesses, depth: int, wanted: int, seconds: float, first: float | None
) -> BacklogRow:
    while await backlog.length() < wanted:
        await backlog.fill(wanted)
    await backlog.hold(wanted, min(SETTLE_SECONDS, seconds))
    submitted, cpu, start = backlog.submitted, processes.cpu_seconds(), time.monotonic()
    completed = await backlog.hold(wanted, seconds)
    took, after = time.monotonic() - start, processes.cpu_seconds()
    rate = completed / took
    return BacklogRow(
        depth,
        (backlog.submitted - submitted) / took,
        rate,
        rate / (first or rate),
        {part: (value - cpu.get(part, 0.0)) / completed for part, value in after.items()},
    )
