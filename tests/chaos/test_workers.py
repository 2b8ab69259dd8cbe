"""Workers that are killed, frozen and woken."""

import asyncio
import signal
from typing import Any

import pytest

from server.jobs.job import JobState
from tests.chaos.harness import LEASE_SECONDS, Atelier, House, dice, is_alive, kill, scaled, until
from tests.server.tiny import NUM_TOKENS

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("order", ["random", "confidence"])
async def test_a_worker_killed_at_any_step_costs_nothing(
    house: House, atelier: Atelier, figures: dict[str, Any], order: str
) -> None:
    """kill -9 in each of a job's steps, once before and once after the step was written."""
    house.worker()
    await house.model_is_known()
    kill(house._workers.pop(), signal.SIGKILL)
    equal = 0
    steps = range(1, NUM_TOKENS + 1)
    for step in steps:
        job_id = await house.submit(n=2, seed=step, order=order, guidance=2.0)
        victim = house.worker(die_after=step, die_late=bool(step % 2))
        await until(lambda victim=victim: gone(victim))
        assert (await house.queue.load(job_id)).state is JobState.RUNNING
        rescuer = house.worker()
        job = await house.end_of(job_id)
        await house.sound_log(job_id)
        assert job.attempts == 2
        equal += await house.pngs(job) == atelier.paint(job.params)
        kill(rescuer, signal.SIGKILL)
        await until(lambda rescuer=rescuer: gone(rescuer))
    figures[f"resumed_equal_{order}"] = f"{equal}/{len(steps)}"
    assert equal == len(steps)


async def gone(pid: int) -> bool:
    return not is_alive(pid)


async def test_a_frozen_worker_that_wakes_writes_nothing(
    house: House, atelier: Atelier, figures: dict[str, Any]
) -> None:
    frozen = house.worker("one", step_seconds=0.1)
    await house.model_is_known()
    job_id = await house.submit(n=2, seed=3)
    await house.has_patches(job_id, 4)
    kill(frozen, signal.SIGSTOP)
    house.worker("two", step_seconds=0.02)
    job = await house.end_of(job_id, LEASE_SECONDS + 60)
    events = await house.sound_log(job_id)
    assert (job.attempts, job.owner) == (2, job.owner)
    kill(frozen, signal.SIGCONT)
    await asyncio.sleep(2)
    after = await house.log.read_all(job_id)
    figures["frozen_worker_wrote"] = len(after) - len(events)
    assert after == events
    assert await house.pngs(job) == atelier.paint(job.params)
    assert is_alive(frozen), "it goes on with other jobs"


async def test_two_workers_share_a_queue(house: House, atelier: Atelier, figures: dict[str, Any]) -> None:
    for folder in ("one", "two"):
        house.worker(folder, step_seconds=0.005, slots=8)
    await house.model_is_known()
    count = scaled(200, 20)
    ids = [await house.submit(seed=index, guidance=1.0 + index % 2) for index in range(count)]
    jobs = [await house.end_of(job_id) for job_id in ids]
    for job in jobs:
        await house.sound_log(job.id)
        assert (job.state, job.attempts) == (JobState.COMPLETED, 1)
    assert len({job.owner for job in jobs}) == 2, "both worked"
    equal = [await house.pngs(job) == atelier.paint(job.params) for job in jobs]
    figures["two_workers_equal"] = f"{sum(equal)}/{count}"
    assert all(equal)


async def test_a_cancel_is_seen_within_a_step_and_disturbs_nobody(
    house: House, atelier: Atelier, figures: dict[str, Any]
) -> None:
    """Fifteen others run beside it in one batch; their pictures are bit for bit those that each gives alone."""
    house.worker(step_seconds=0.05, slots=64)
    await house.model_is_known()
    steps_after: list[int] = []
    equal = total = 0
    for round_number in range(scaled(20, 2)):
        ids = [await house.submit(seed=16 * round_number + index, guidance=2.0) for index in range(16)]
        victim = ids[dice(round_number).randrange(16)]
        await house.has_patches(victim, 3)
        before = (await house.queue.load(victim)).seq
        await house.queue.cancel(await house.queue.load(victim))
        jobs = [await house.end_of(job_id) for job_id in ids]
        for job in jobs:
            events = await house.sound_log(job.id)
            if job.id == victim:
                assert job.state is JobState.CANCELED
                steps_after.append(sum(event.type == "patches" and event.seq > before for event in events))
            else:
                assert job.state is JobState.COMPLETED
                total += 1
                equal += await house.pngs(job) == atelier.paint(job.params)
    figures["cancel_steps_after_max"] = max(steps_after)
    figures["beside_a_cancel_equal"] = f"{equal}/{total}"
    assert equal == total
    assert max(steps_after) <= 2, "the step that was under way, and one that began before the cancel was heard"


async def test_many_jobs_under_random_kills(house: House, figures: dict[str, Any]) -> None:
    """Nothing is lost, and every job has one terminal event, whenever and however often its workers die."""
    chance, count = dice(7), scaled(2000, 100)
    workers = {folder: house.worker(folder, slots=16) for folder in ("one", "two", "three")}
    await house.model_is_known()
    ids: list[str] = []
    kills = 0

    async def submit() -> None:
        for number in range(count):
            wish = {"priority": chance.choice(("low", "normal", "high")), "steps": chance.randint(1, NUM_TOKENS)}
            ids.append(await house.submit(seed=number, n=chance.randint(1, 3), guidance=2.0, previews=False, **wish))
            if chance.random() < 0.1:
                await house.queue.cancel(await house.queue.load(chance.choice(ids)))
            await asyncio.sleep(chance.random() * 0.02)

    async def active() -> list[str]:
        return await house.queue.active("tiny")

    submits = asyncio.create_task(submit())
    # A worker lives for about a second, long enough to finish something; then kills stop, and all has to end.
    while not submits.done() or (len(await active()) and kills < scaled(600, 30)):
        await asyncio.sleep(chance.uniform(0.2, 0.6))
        folder = chance.choice(list(workers))
        kills += kill(workers[folder], signal.SIGKILL)
        await until(lambda folder=folder: gone(workers[folder]))
        workers[folder] = house.worker(folder, slots=16)

    await submits
    jobs = [await house.end_of(job_id, 120) for job_id in ids]
    states = [job.state.value for job in jobs]
    bad = 0
    for job in jobs:
        try:
            await house.sound_log(job.id)
        except AssertionError:
            bad += 1
    figures["random_kills"] = {
        "jobs": count,
        "kills": kills,
        "restarted": sum(job.epoch > 1 for job in jobs),
        **{state: states.count(state) for state in sorted(set(states))},
        "lost": sum(not job.state.is_terminal for job in jobs),
        "terminal_events_wrong": bad,
        "most_attempts": max(job.attempts for job in jobs),
    }
    assert bad == 0
    assert set(states) <= {"completed", "canceled"}
    assert await house.queue.depth("tiny") == 0
