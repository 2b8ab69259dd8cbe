"""What the tests of the protocol share: parameters, and a worker that is the test itself."""

from collections.abc import Mapping
from typing import Any

from oar_wire.job import GenerationParams
from server.jobs import keys, scripts
from server.jobs.connection import RedisConnection
from server.jobs.events import EventLog
from server.jobs.job import JobState
from server.jobs.log import Claim
from server.jobs.queue import JobQueue
from server.jobs.worker_queue import WorkerQueue
from server.settings import Settings

PARAMS = GenerationParams(
    model="tiny", prompt="a red circle", seed=7, n=2, order="raster", steps=3, group_sizes="cosine",
    guidance=2.0, temperature=1.0, top_k=0, top_p=1.0,
)  # fmt: skip

# The transitions that the scripts allow.
TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    # A queued job fails when its deadline has passed or its attempts are used up.
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELED, JobState.FAILED}),
    # A running job is queued again when its worker hands it back.
    JobState.RUNNING: frozenset(
        {JobState.QUEUED, JobState.RUNNING, JobState.COMPLETED, JobState.FAILED, JobState.CANCELED}
    ),
    JobState.COMPLETED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELED: frozenset(),
}


def params(**changes: Any) -> GenerationParams:
    return PARAMS.model_copy(update=changes)


class ManualClock:
    """Monotonic seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


async def open_worker(
    connection: RedisConnection, settings: Settings, name: str = "one", model_hash: str = ""
) -> WorkerQueue:
    """Its clock stands still: it takes no other worker for dead."""
    worker = WorkerQueue(connection, settings, name, "tiny", model_hash, ManualClock())
    await worker.open()
    return worker


async def take(worker: WorkerQueue) -> Claim:
    taken = await worker.take(10)
    assert taken is not None
    claim = await worker.claim(taken)
    assert claim is not None
    return claim


async def run(connection: RedisConnection, call: scripts.ScriptCall) -> Any:
    return (await scripts.run_many(connection, [call]))[0]


async def make_late(connection: RedisConnection, job_id: str) -> None:
    """Moves a job's deadline to long ago."""
    await connection.once("HSET", keys.job_key(job_id), keys.Field.DEADLINE, 1)
    await connection.once("ZADD", keys.DUE, 1, job_id)


async def end_leases(observer: WorkerQueue) -> None:
    """As if all other workers had been silent for a whole lease before the eyes of this one."""
    clock = observer.leases.clock
    assert isinstance(clock, ManualClock)
    for _ in range(200):  # a gap between two readings counts little
        await observer.observe()
        clock.advance(3600)


async def set_clock(connection: RedisConnection, claim: Claim, by: float) -> None:
    """As if Redis' clock had been set by so many seconds since the job's lease was renewed."""
    entry = await connection.once("HGET", keys.job_key(claim.job_id), keys.Field.ENTRY)
    owner = await connection.once("HGET", keys.job_key(claim.job_id), keys.Field.OWNER)
    queue = keys.queue_key(claim.model, claim.priority)
    (held,) = await connection.once("XPENDING", queue, keys.GROUP, entry, entry, 1)
    seconds, microseconds = await connection.once("TIME")
    delivered_at = int(1000 * (int(seconds) + int(microseconds) / 1e6 - by))
    words = ("TIME", delivered_at, "RETRYCOUNT", held[3], "JUSTID")
    await connection.once("XCLAIM", queue, keys.GROUP, owner, 0, entry, *words)


async def kinds(connection: RedisConnection, job_id: str) -> list[str]:
    """Types of a job's events; all numbers are there."""
    events = await EventLog(connection).read_all(job_id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    return [event.type for event in events]


async def bury(connection: RedisConnection, settings: Settings, source: bytes | None = None, **changes: Any) -> str:
    """A job that killed all its workers."""
    worker = await open_worker(connection, settings)
    job_id = (await JobQueue(connection, settings).submit(params(**changes), source=source)).job_id
    await take(worker)
    while unfinished := await worker.unfinished():
        await worker.claim(unfinished[0])
    return job_id
