"""The picture that an edit starts from goes with its job, however that ends."""

from collections.abc import Awaitable, Callable

import pytest

from oar_wire.job import EditParams
from server.jobs import keys
from server.jobs.connection import RedisConnection
from server.jobs.job import JobState
from server.jobs.queue import JobQueue
from server.jobs.sweeper import Sweeper
from server.jobs.worker_queue import WorkerQueue
from server.settings import Settings
from tests.server.jobs.protocol import make_late, open_worker, params, run, take

pytestmark = pytest.mark.anyio

EDIT = params(edit=EditParams(mode="inpaint"))


class House:
    """A job with a source picture, its queue, its worker and a sweeper that takes no worker for alive."""

    def __init__(self, connection: RedisConnection, settings: Settings, worker: WorkerQueue, job_id: str) -> None:
        self.connection, self.worker, self.job_id = connection, worker, job_id
        self.queue = JobQueue(connection, settings)
        self.sweeper = Sweeper(connection, settings.model_copy(update={"lease_seconds": 0.0}))

    async def cancel(self) -> None:
        await self.queue.cancel(await self.queue.load(self.job_id))

    async def claim_again(self) -> None:
        (taken,) = await self.worker.unfinished()
        await self.worker.claim(taken)

    async def finish(self, state: JobState) -> None:
        assert await run(self.connection, self.worker.calls.finish(await take(self.worker), state, "{}")) == 1


async def completed(house: House) -> None:
    await house.finish(JobState.COMPLETED)


async def failed(house: House) -> None:
    await house.finish(JobState.FAILED)


async def canceled_while_it_ran(house: House) -> None:
    await house.finish(JobState.CANCELED)


async def canceled_while_it_waited(house: House) -> None:
    await house.cancel()


async def late_when_it_was_claimed(house: House) -> None:
    await make_late(house.connection, house.job_id)
    taken = await house.worker.take(0.2)
    assert taken is not None
    assert await house.worker.claim(taken) is None


async def canceled_when_it_was_claimed_again(house: House) -> None:
    await take(house.worker)
    await house.cancel()
    await house.claim_again()


async def begun_too_often(house: House) -> None:
    await take(house.worker)
    while not (await house.queue.load(house.job_id)).state.is_terminal:
        await house.claim_again()


async def late_and_swept_while_it_waited(house: House) -> None:
    await make_late(house.connection, house.job_id)
    assert await house.sweeper.sweep() == 1


async def late_and_swept_after_its_worker_died(house: House) -> None:
    await take(house.worker)
    for _ in range(2):  # it has to be seen twice
        await make_late(house.connection, house.job_id)
        assert await house.sweeper.sweep() == 1


async def canceled_and_swept_after_its_worker_died(house: House) -> None:
    await take(house.worker)
    await house.cancel()
    for _ in range(2):
        await house.connection.once("ZADD", keys.DUE, 1, house.job_id)
        assert await house.sweeper.sweep() == 1


@pytest.mark.parametrize(
    ("end", "state"),
    [
        (completed, JobState.COMPLETED),
        (failed, JobState.FAILED),
        (canceled_while_it_ran, JobState.CANCELED),
        (canceled_while_it_waited, JobState.CANCELED),
        (late_when_it_was_claimed, JobState.FAILED),
        (canceled_when_it_was_claimed_again, JobState.CANCELED),
        (begun_too_often, JobState.FAILED),
        (late_and_swept_while_it_waited, JobState.FAILED),
        (late_and_swept_after_its_worker_died, JobState.FAILED),
        (canceled_and_swept_after_its_worker_died, JobState.CANCELED),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
async def test_every_ending_lets_it_expire(
    connection: RedisConnection, settings: Settings, end: Callable[[House], Awaitable[None]], state: JobState
) -> None:
    worker = await open_worker(connection, settings)
    job_id = (await JobQueue(connection, settings).submit(EDIT, source=b"a png")).job_id
    assert await connection.once("PTTL", keys.source_key(job_id)) == -1, "a job may wait for long"
    house = House(connection, settings, worker, job_id)
    await end(house)
    assert (await house.queue.load(job_id)).state is state
    left = [await connection.once("PTTL", key) for key in (keys.source_key(job_id), keys.job_key(job_id))]
    if end is canceled_while_it_waited:
        assert left.pop(0) == -2, "nothing came of it: it goes at once"
    assert all(0 < milliseconds <= settings.result_ttl * 1000 for milliseconds in left), left
