"""Measures what the queue's scripts cost Redis while few or many jobs wait."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from oar_lab.bench.table import BenchReport, table
from oar_wire.events import Completed
from oar_wire.job import GenerationParams
from server.jobs import scripts
from server.jobs.connection import RedisConnection
from server.jobs.gauge import QueueGauge
from server.jobs.job import JobState
from server.jobs.queue import JobQueue
from server.jobs.worker_queue import WorkerQueue
from server.settings import Settings

MODEL = "bench"
CALLS = 40  # of each kind at each depth
AT_ONCE = 50  # submits under way while the queue is filled
PARAMS = GenerationParams(
    model=MODEL, prompt="a prompt of usual length, walking, seen from the front", seed=0, n=1, order="random", steps=32,
    group_sizes="cosine", guidance=1.5, temperature=1.0, top_k=0, top_p=0.95,
)  # fmt: skip


@dataclass(frozen=True)
class QueueRow:
    """Microseconds of Redis' time, a call."""

    waiting: int
    submit: float
    place: float  # of the job that was submitted last: what GET and the answer of POST ask for
    take: float
    finish: float  # a claim and an ending
    gauge: float  # of a scrape


@dataclass(frozen=True)
class QueueReport(BenchReport):
    calls: int
    rows: list[QueueRow]

    def table(self) -> str:
        headers = ("jobs waiting", "submit us", "place us", "take us", "claim and finish us", "gauge us")
        return table(headers, ((r.waiting, r.submit, r.place, r.take, r.finish, r.gauge) for r in self.rows))


async def measure_queue(url: str, data_dir: Path, depths: Sequence[int]) -> QueueReport:
    """`depths` ascend. The Redis is one's own: its statistics are reset."""
    settings = Settings.model_validate({"data_dir": data_dir, "queue_depth": max(depths) + 10 * CALLS * len(depths)})
    connection = RedisConnection(url)
    try:
        return QueueReport(CALLS, [await _row(connection, settings, depth) for depth in depths])
    finally:
        await connection.close()


async def _row(connection: RedisConnection, settings: Settings, depth: int) -> QueueRow:
    queue, worker = JobQueue(connection, settings), WorkerQueue(connection, settings, "bench", MODEL)
    scrape = QueueGauge(connection)
    await worker.open()
    for start in range(await queue.depth(MODEL), depth, AT_ONCE):
        await asyncio.gather(*(queue.submit(PARAMS) for _ in range(min(AT_ONCE, depth - start))))
    submitted = await queue.submit(PARAMS)
    job = await queue.load(submitted.job_id)
    place = await _microseconds(connection, lambda: queue.look(job.id))
    gauge = await _microseconds(connection, lambda: scrape.read(MODEL))
    submit = await _microseconds(connection, lambda: queue.submit(PARAMS))
    take = await _microseconds(connection, lambda: worker.take(1))
    finish = await _microseconds(connection, lambda: _finish(connection, worker))
    return QueueRow(depth, submit, place, take, finish, gauge)


async def _finish(connection: RedisConnection, worker: WorkerQueue) -> None:
    """The oldest job that the worker holds."""
    claim = await worker.claim((await worker.unfinished())[0])
    assert claim is not None
    body = Completed(images=(), seconds=1.0).body()
    await scripts.run_many(connection, [worker.calls.finish(claim, JobState.COMPLETED, body, ())])


async def _microseconds(connection: RedisConnection, call: Callable[[], Awaitable[object]]) -> float:
    """Redis' time in scripts, a call; the first one does not count."""
    await call()
    await connection.once("CONFIG", "RESETSTAT")
    for _ in range(CALLS):
        await call()
    facts: bytes = await connection.once("INFO", "commandstats")
    lines = (line for line in facts.decode().splitlines() if line.startswith("cmdstat_evalsha:"))
    return sum(float(line.partition("usec=")[2].partition(",")[0]) for line in lines) / CALLS
