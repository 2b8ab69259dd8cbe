"""Redis' clock is set for real, under libfaketime, while workers hold jobs."""

import os
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server.jobs.connection import RedisConnection
from server.jobs.embedded import find_binary
from server.jobs.job import JobState
from server.jobs.queue import JobQueue
from server.settings import Settings
from tests.ports import free_port
from tests.server.jobs.protocol import PARAMS, end_leases, kinds, open_worker, run, take

pytestmark = pytest.mark.anyio

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
HALF_AN_HOUR = 1800


class FakedRedis:
    def __init__(self, folder: Path) -> None:
        self._offset = folder / "offset"
        self.set_clock(0)
        self.port = free_port()
        faked = {
            "LD_PRELOAD": str(LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._offset),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        words = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        self._process = subprocess.Popen([str(find_binary()), *words], env={**os.environ, **faked})

    def set_clock(self, seconds: int) -> None:
        self._offset.write_text(f"{seconds:+d}\n")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[FakedRedis]:
    if not LIBRARIES:
        pytest.skip("libfaketime is not installed: apt-get install libfaketime")
    redis = FakedRedis(tmp_path)
    yield redis
    redis.stop()


@pytest.fixture
async def faked(redis: FakedRedis) -> AsyncIterator[RedisConnection]:
    connection = RedisConnection(f"redis://127.0.0.1:{redis.port}/0")
    while not await connection.is_alive():
        time.sleep(0.05)
    yield connection
    await connection.close()


async def clock_of(connection: RedisConnection, by: int) -> None:
    """Until the clock has the offset: it is read from a file."""
    while abs(int((await connection.once("TIME"))[0]) - time.time() - by) > 5:
        time.sleep(0.02)


@pytest.mark.parametrize("step", [-HALF_AN_HOUR, HALF_AN_HOUR])
async def test_a_step_of_the_clock_neither_suspends_nor_ends_a_lease(
    redis: FakedRedis, faked: RedisConnection, settings: Settings, step: int
) -> None:
    queue = JobQueue(faked, settings)
    living, frozen = await open_worker(faked, settings, "living"), await open_worker(faked, settings, "frozen")
    other = await open_worker(faked, settings, "other")
    kept_id, lost_id = [(await queue.submit(PARAMS)).job_id for _ in range(2)]
    kept, lost = await take(living), await take(frozen)
    assert (kept.job_id, lost.job_id) == (kept_id, lost_id)
    await other.observe()
    redis.set_clock(step)
    await clock_of(faked, step)
    await other.observe()
    assert await other.take(0.05) is None, "nobody is dead yet"
    await end_leases(other)
    assert await run(faked, living.calls.renew(kept)) == 0
    claim = await take(other)
    assert (claim.job_id, claim.attempt) == (lost_id, 2)
    assert await other.take(0.05) is None
    assert (await queue.load(kept_id)).attempts == 1
    assert await run(faked, frozen.calls.renew(lost)) == -1
    for worker, held in ((living, kept), (other, claim)):
        assert await run(faked, worker.calls.finish(held, JobState.COMPLETED, "{}")) == 1
    assert await kinds(faked, kept_id) == ["queued", "started", "completed"]
