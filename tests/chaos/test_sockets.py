"""Thousands of websockets on one API process: each is told the end of its job, and what one of them costs."""

import asyncio
from typing import Any

import pytest

from server.jobs import scripts
from server.jobs.job import JobState
from server.jobs.log import NewEvent
from server.jobs.queue import JobQueue
from server.jobs.worker_queue import WorkerQueue
from tests.chaos.harness import House, rss
from tests.server.crowd import Crowd
from tests.server.jobs.protocol import open_worker, params, take

pytestmark = pytest.mark.anyio

SOCKETS = 2000
JOBS = 50  # that half of the sockets watch; the others watch the first one
STEPS = 16
PATCHES = NewEvent("patches", '{"image":0,"step":1,"steps":16,"patches":[' + "1" * 400 + "]}")
PREVIEW = NewEvent("preview", '{"image":0,"data":"' + "a" * 2000 + '"}')


async def paint(house: House, worker: WorkerQueue, crowd: Crowd, pid: int) -> int:
    """Begins all jobs, waits until everybody watches, and paints them to their ends. Returns the API's memory in KiB
    just before these."""
    claims = [await take(worker) for _ in range(JOBS)]
    seqs = [claim.seq for claim in claims]
    await crowd.is_open.wait()
    for _ in range(STEPS):
        calls = [worker.calls.emit(claim, seq, [PATCHES, PREVIEW]) for claim, seq in zip(claims, seqs)]
        seqs = [seq for seq, _ in await scripts.run_many(house.connection, calls)]
        await asyncio.sleep(0.2)
    held = rss(pid)
    for claim in claims:
        await scripts.run_many(house.connection, [worker.calls.finish(claim, JobState.COMPLETED, "{}", [b"png"] * 2)])
    return held


async def test_two_thousand_sockets_are_told_the_end(house: House, figures: dict[str, Any]) -> None:
    worker = await open_worker(house.connection, house.settings)
    queue = JobQueue(house.connection, house.settings)
    ids = [(await queue.submit(params())).job_id for _ in range(JOBS)]
    async with house.api(OAR_MAX_SOCKETS=str(SOCKETS), OAR_HEAD_TIMEOUT="600") as api:  # this process is slow
        warm = Crowd()
        warming = asyncio.create_task(warm.watch([api.stream_url(ids[0])] * 8))
        await warm.is_open.wait()
        before = rss(api.process.pid)
        crowd = Crowd()
        watched = [ids[0]] * (SOCKETS // 2) + [ids[number % JOBS] for number in range(SOCKETS // 2 - 8)]
        loop = asyncio.get_running_loop()
        start = loop.time()
        watching = asyncio.create_task(crowd.watch([api.stream_url(job_id) for job_id in watched]))
        await crowd.is_open.wait()
        opened = loop.time()
        held = await paint(house, worker, crowd, api.process.pid)
        painted = loop.time()
        await asyncio.gather(watching, warming)
        behind = loop.time() - painted
    figures["sockets"] = {
        "open": len(watched),
        "open_seconds": round(opened - start, 1),
        "kib_each": round((held - before) / len(watched), 1),
        "api_rss_mib": round(held / 1024),
        "last_end_after_seconds": round(behind, 2),
    }
    assert crowd.endings + warm.endings == {("completed", 1000): SOCKETS}
