"""What the tests of the protocol share: parameters, and a worker that is the test itself."""

from typing import Any

from oar_wire.job import GenerationParams
from server.jobs import keys, scripts
from server.jobs.connection import RedisConnection
from server.jobs.events import EventLog
from server.jobs.worker_queue import Claim, WorkerQueue
from server.settings import Settings

PARAMS = GenerationParams(
    model="tiny", prompt="a red circle", seed=7, n=2, order="raster", steps=3, group_sizes="cosine",
    guidance=2.0, temperature=1.0, top_k=0, top_p=1.0,
)  # fmt: skip


def params(**changes: Any) -> GenerationParams:
    return PARAMS.model_copy(update=changes)


async def open_worker(
    connection: RedisConnection, settings: Settings, name: str = "one", model_hash: str = ""
) -> WorkerQueue:
    worker = WorkerQueue(connection, settings, name, "tiny", model_hash)
    await worker.open()
    return worker


async def take(worker: WorkerQueue) -> Claim:
    taken = await worker.take(10)
    assert taken is not None
    claim = await worker.claim(taken)
    assert claim is not None
    return claim


async def run(connection: RedisConnection, call: scripts.Call) -> Any:
    return (await scripts.run_many(connection, [call]))[0]


async def make_late(connection: RedisConnection, job_id: str) -> None:
    """Moves a job's deadline to long ago."""
    await connection.once("HSET", keys.job(job_id), keys.Field.DEADLINE, 1)
    await connection.once("ZADD", keys.DUE, 1, job_id)


async def end_lease(connection: RedisConnection, claim: Claim) -> None:
    """As if the job's worker had been silent for an hour."""
    queue, entry = (
        keys.queue(claim.model, claim.priority),
        await connection.once("HGET", keys.job(claim.job_id), "entry"),
    )
    owner = await connection.once("HGET", keys.job(claim.job_id), keys.Field.OWNER)
    await connection.once("XCLAIM", queue, keys.GROUP, owner, 0, entry, "IDLE", 3_600_000, "JUSTID")


async def kinds(connection: RedisConnection, job_id: str) -> list[str]:
    """Types of a job's events; all numbers are there."""
    events = await EventLog(connection).read_all(job_id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    return [event.type for event in events]
