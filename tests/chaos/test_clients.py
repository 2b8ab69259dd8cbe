"""API processes that are killed, clients that come and go, and more of them than can be served."""

import asyncio
import base64
import contextlib
import io
import json
import signal
from collections import Counter
from typing import Any

import httpx
import openai
import pytest
from PIL import Image
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from server.jobs.job import JobState
from server.jobs.store import Registry
from tests.chaos.harness import (
    Api,
    Atelier,
    House,
    dice,
    is_alive,
    kill,
    percentile,
    rss,
    scaled,
    until,
    waited_for_a_core,
)
from tests.server.tiny import NUM_TOKENS

pytestmark = pytest.mark.anyio

GONE = (ConnectionClosed, InvalidHandshake, OSError, TimeoutError)


async def frames(api: Api, job_id: str, after: int, most: int | None = None) -> list[str]:
    """Texts that come until the end, the `most`-th one, or a broken connection."""
    received: list[str] = []
    with contextlib.suppress(*GONE):
        async with connect(api.stream_url(job_id, after), max_size=None) as socket:
            while most is None or len(received) < most:
                received.append(await socket.recv(decode=True))
    return received


def seq_of(texts: list[str]) -> int:
    return json.loads(texts[-1])["seq"] if texts else 0


def lasting(texts: list[str]) -> list[str]:
    return [text for text in texts if not text.startswith('{"type":"preview"')]


async def log_of(house: House, job_id: str) -> list[str]:
    return lasting([event.to_json() for event in await house.sound_log(job_id)])


async def test_a_client_resumes_when_the_api_was_killed(house: House, figures: dict[str, Any]) -> None:
    house.worker(step_seconds=0.1)
    await house.model_is_known()
    kills = 0
    async with house.api() as api:
        job_id = await house.submit(n=2, seed=1)
        received: list[str] = []
        while not received or json.loads(received[-1])["type"] != "completed":
            reading = asyncio.create_task(frames(api, job_id, seq_of(received)))
            done, _ = await asyncio.wait([reading], timeout=0.5)
            if not done and kills < 3:
                await api.restart_after_kill()
                kills += 1
            received += await reading
    assert kills > 0
    figures["api_kills"] = kills
    assert lasting(received) == await log_of(house, job_id)


async def test_clients_that_break_off_at_random_get_the_log_byte_for_byte(
    house: House, figures: dict[str, Any]
) -> None:
    house.worker(step_seconds=0.02)
    await house.model_is_known()
    wanted, breaks = scaled(500, 50), 0
    exact = readers = 0
    async with house.api() as api:

        async def read(job_id: str, seed: int) -> list[str]:
            nonlocal breaks
            chance, received = dice(seed), list[str]()
            while not received or json.loads(received[-1])["type"] != "completed":
                received += await frames(api, job_id, seq_of(received), most=chance.randint(1, 12))
                breaks += 1
            return received

        while breaks < wanted:
            ids = [await house.submit(n=2, seed=readers + index) for index in range(4)]
            logs = await asyncio.gather(*(read(job_id, seed) for job_id in ids for seed in range(readers, readers + 3)))
            for index, received in enumerate(logs):
                readers += 1
                exact += lasting(received) == await log_of(house, ids[index // 3])
    figures["disconnects"] = {"breaks": breaks, "streams": readers, "byte_exact": exact}
    assert exact == readers


async def test_an_openai_stream_outlives_its_workers(house: House, atelier: Atelier, figures: dict[str, Any]) -> None:
    """One worker dies after the first partial images and its successor after the next; the client of another package,
    which knows nothing of jobs, sees one stream with all that it asked for, and the pictures of an undisturbed run."""
    count, whole = scaled(20, 3), 0
    body = {"prompt": "a red circle", "n": 2, "stream": True, "partial_images": 3}

    async def workers() -> None:
        """The next begins where the one before was killed; partial images are made after steps 5, 10 and 15 of 20."""
        for die_after in (7, 6, None):
            pid = house.worker(step_seconds=0.02, die_after=die_after)
            await until(lambda pid=pid: gone(pid))

    registry = Registry(house.connection)
    house.worker()
    await house.model_is_known()
    kill(house._workers[-1], signal.SIGKILL)
    async with house.api() as api:  # noqa: SIM117
        async with openai.AsyncOpenAI(base_url=f"{api.url}/v1", api_key="none", max_retries=0, timeout=120) as client:
            for seed in range(count):
                # A submit is refused where no worker is heard of: the dead one is forgotten, the next one awaited.
                await until(lambda: gone(house._workers[-1]))
                for worker in await registry.workers.alive():
                    await registry.workers.leave(worker.name)
                working = asyncio.create_task(workers())
                await until(registry.workers.alive)
                partial, finished, facts = Counter[int](), dict[int, bytes](), dict[str, Any]()
                stream = await client.images.generate(**body, extra_body={"seed": seed, "steps": NUM_TOKENS})
                async for event in stream:
                    facts = (event.model_extra or {})["oar"]
                    if event.type == "image_generation.partial_image":
                        assert event.partial_image_index == partial[facts["index"]]
                        partial[facts["index"]] += 1
                    else:
                        finished[facts["index"]] = base64.b64decode(event.b64_json)
                job = await house.end_of(facts["job_id"])
                kill(house._workers[-1], signal.SIGKILL)
                await working
                await house.sound_log(job.id)
                assert job.attempts == 3
                assert partial == {0: 3, 1: 3}
                pixels = [opened(finished[index]) for index in sorted(finished)]
                whole += pixels == [opened(png) for png in atelier.paint(job.params)]
    figures["openai_streams_whole"] = f"{whole}/{count}, 2 kills in each"
    assert whole == count


async def gone(pid: int) -> bool:
    return not is_alive(pid)


def opened(png: bytes) -> bytes:
    """The pixels: what made a picture stands in a text chunk beside them."""
    with Image.open(io.BytesIO(png)) as picture:
        return picture.convert("RGB").tobytes()


async def test_overload_at_five_times_capacity(house: House, figures: dict[str, Any]) -> None:
    """Requests come as they come, whatever became of those before (open loop): most have to be refused, and quickly."""
    step_seconds, steps, slots, depth = 0.05, 8, 2, 16
    capacity = slots / (steps * step_seconds)  # jobs a second
    rate = 5 * capacity
    house.worker(step_seconds=step_seconds, slots=slots)
    await house.model_is_known()
    body = {"prompt": "a red circle", "steps": steps, "guidance": 1.0, "previews": False}
    latencies: dict[int, list[float]] = {}
    accepted: list[str] = []
    waits: list[int] = []
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)
    async with house.api(OAR_QUEUE_DEPTH=str(depth)) as api:  # noqa: SIM117
        async with httpx.AsyncClient(base_url=api.url, timeout=30, limits=limits) as client:
            loop = asyncio.get_running_loop()

            async def request() -> None:
                start = loop.time()
                answer = await client.post("/v1/generations", json=body)
                latencies.setdefault(answer.status_code, []).append(loop.time() - start)
                if answer.status_code == 202:
                    accepted.append(answer.json()["id"])
                else:
                    waits.append(int(answer.headers["Retry-After"]))

            async def load(seconds: float) -> None:
                start = loop.time()
                requests: list[asyncio.Task[None]] = []
                while (due := len(requests) / rate) < seconds:
                    await asyncio.sleep(start + due - loop.time())
                    requests.append(asyncio.create_task(request()))
                await asyncio.gather(*requests)

            await load(2)  # as the first requests of a process are slower
            latencies.clear()
            before, waited, start = rss(api.process.pid), waited_for_a_core(api.process.pid), loop.time()
            await load(scaled(200, 15))
            growth = rss(api.process.pid) - before
            waited = (waited_for_a_core(api.process.pid) - waited) / (loop.time() - start)
            refused = latencies.get(429, [])
            for job_id in accepted:
                assert (await house.end_of(job_id)).state is JobState.COMPLETED
                await house.sound_log(job_id)
    refused_ms = [1000 * seconds for seconds in refused]
    figures["overload"] = {
        "capacity_jobs_per_s": round(capacity, 1),
        "rate_per_s": round(rate, 1),
        "refused": len(refused),
        "accepted": len(accepted),
        "accepted_lost": 0,
        "refused_p50_ms": round(percentile(refused_ms, 0.5), 1),
        "refused_p99_ms": round(percentile(refused_ms, 0.99), 1),
        # Where this is more than a few percent, the times above tell of the machine and not of the server.
        "api_waited_for_a_core": f"{waited:.0%}",
        "retry_after": [min(waits), max(waits)],
        "api_rss_growth_kib": growth,
    }
    assert set(latencies) <= {202, 429}
    assert len(refused) > len(latencies.get(202, ()))
    assert growth < 32 << 10, "no memory is kept for those who were refused"
