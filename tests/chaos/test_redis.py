"""Redis that stalls, and Redis that is killed and comes back from its append-only file."""

import asyncio
import signal
import time
from typing import Any

import pytest

from oar_wire.errors import RedisUnavailable
from server.jobs.job import JobState
from tests.chaos.harness import Atelier, House, kill, scaled, until

pytestmark = pytest.mark.anyio


async def finish_all(house: House, atelier: Atelier, ids: list[str]) -> int:
    """How many pictures are those of an undisturbed run."""
    equal = 0
    for job_id in ids:
        job = await house.end_of(job_id)
        await house.sound_log(job_id)
        assert job.state is JobState.COMPLETED
        equal += await house.pngs(job) == atelier.paint(job.params)
    return equal


async def test_a_stalled_redis_stops_nothing_for_good(house: House, atelier: Atelier, figures: dict[str, Any]) -> None:
    """Frozen for longer than commands wait and than leases last: workers and submits give up and come back."""
    house.worker(step_seconds=0.02)
    await house.model_is_known()
    ids = [await house.submit(seed=seed) for seed in range(scaled(60, 6))]
    await house.has_patches(ids[0], 2)
    valkey = house.valkey
    kill(valkey, signal.SIGSTOP)
    start = time.monotonic()
    with pytest.raises(RedisUnavailable):
        await house.queue.load(ids[0])
    figures["redis_stalled_answer_seconds"] = round(time.monotonic() - start, 2)
    await asyncio.sleep(2)
    kill(valkey, signal.SIGCONT)
    equal = await finish_all(house, atelier, ids)
    figures["redis_stalled_equal"] = f"{equal}/{len(ids)}"
    assert equal == len(ids)


async def test_a_killed_redis_has_lost_no_accepted_job(house: House, atelier: Atelier, figures: dict[str, Any]) -> None:
    """kill -9 between submits and steps: what was answered is in the append-only file."""
    house.worker(step_seconds=0.005)
    await house.model_is_known()
    ids: list[str] = []
    rounds = scaled(20, 2)
    for number in range(rounds):
        ids += [await house.submit(seed=100 * number + seed) for seed in range(8)]
        await house.has_patches(ids[-8], 1)
        kill(house.valkey, signal.SIGKILL)

        async def is_back() -> bool:
            return await house.connection.is_alive()

        await until(is_back)
    equal = await finish_all(house, atelier, ids)
    figures["redis_killed"] = {"kills": rounds, "jobs": len(ids), "equal": equal}
    assert equal == len(ids)
