"""Ten minutes of everything at once: memory, files and queue must be after it what they were when it had warmed up."""

import asyncio
import random
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import openai
import pytest

from oar_client import AsyncClient
from oar_client.errors import BadRequest
from server.tasks import stop_tasks
from tests.chaos.harness import House, percentile, rss, scaled
from tests.server.tiny import NUM_TOKENS
from tests.server.uploads import encode, mask, picture

pytestmark = pytest.mark.anyio

SAMPLE_SECONDS = 0.5
USED_MEMORY = re.compile(rb"used_memory:(\d+)")
ALLOWED_GROWTH_KIB = 8 << 10
WARM_SECONDS = 600


@dataclass
class Watch:
    """Resident memory in KiB and open files of some processes, and what Redis says that it uses, again and again."""

    house: House
    pids: dict[str, int]
    series: dict[str, list[int]] = field(default_factory=dict)

    async def run(self) -> None:
        while True:
            for name, pid in self.pids.items():
                self._add(f"{name}_rss_kib", rss(pid))
                self._add(f"{name}_files", len(list(Path(f"/proc/{pid}/fd").iterdir())))
            (used,) = USED_MEMORY.findall(await self.house.connection.again("INFO", "memory"))
            self._add("redis_used_kib", int(used) // 1024)
            await asyncio.sleep(SAMPLE_SECONDS)

    def growth(self) -> dict[str, int]:
        """Median of the last quarter less that of the third. What came before is the warming up, which is longest in
        the worker: oneDNN keeps 1,024 compiled kernels, one for each shape that was met."""
        return {name: self._quarter(values, 3) - self._quarter(values, 2) for name, values in self.series.items()}

    def _add(self, name: str, value: int) -> None:
        self.series.setdefault(name, []).append(value)

    @staticmethod
    def _quarter(values: list[int], number: int) -> int:
        quarter = len(values) // 4
        return round(median(values[number * quarter : (number + 1) * quarter]))


class Visitor:
    """Does one thing after another, each chosen by its dice, until its time is up."""

    def __init__(self, url: str, seed: int, until: float) -> None:
        self._url = url
        self._chance = random.Random(seed)
        self._until = until
        self.done = Counter[str]()
        self.seconds: list[float] = []

    async def stay(self) -> None:
        limits = httpx.Limits(max_connections=4)
        async with (
            AsyncClient(self._url) as ours,
            openai.AsyncOpenAI(base_url=f"{self._url}/v1", api_key="none", max_retries=0) as theirs,
            httpx.AsyncClient(base_url=self._url, timeout=60, limits=limits) as plain,
        ):
            while time.monotonic() < self._until:
                start, kind = time.monotonic(), await self._do_something(ours, theirs, plain)
                self.done[kind] += 1
                self.seconds.append(time.monotonic() - start)

    async def _do_something(self, ours: AsyncClient, theirs: openai.AsyncOpenAI, plain: httpx.AsyncClient) -> str:
        chance = self._chance
        prompt = "a red circle"
        options: dict[str, Any] = {"steps": chance.randint(1, NUM_TOKENS), "seed": chance.randrange(1 << 40)}
        kind = chance.choice(("watched", "left", "canceled", "edited", "openai", "events", "asked twice", "refused"))
        match kind:
            case "watched":
                generation = await ours.generate(prompt, **options, n=chance.randint(1, 3))
                assert generation.status.status == "completed"
            case "left":
                job = await ours.submit(prompt, **options)
                async with job.events() as events:
                    async for _ in events:
                        break
            case "canceled":
                await (await ours.submit(prompt, **options, n=3)).cancel()
            case "edited":
                await ours.edit(encode(picture()), encode(mask()), "a blue square", steps=2)
            case "openai":
                stream = await theirs.images.generate(prompt=prompt, stream=True, partial_images=2)
                assert [event.type async for event in stream][-1] == "image_generation.completed"
            case "events":
                answer = (await plain.post("/v1/generations", json={"prompt": prompt, **options})).json()
                assert "event: completed" in (await plain.get(answer["events_url"])).text
            case "asked twice":
                headers = {"Idempotency-Key": str(chance.randrange(1 << 60)), "Prefer": "wait=30"}
                twice = [
                    await plain.post("/v1/generations", json={"prompt": prompt, **options}, headers=headers)
                    for _ in range(2)
                ]
                assert twice[0].json()["id"] == twice[1].json()["id"]
            case _:
                with pytest.raises(BadRequest):
                    await ours.generate("")
        return kind


async def test_ten_minutes_of_everything(house: House, figures: dict[str, Any]) -> None:
    """Results are kept for seconds only, so that what expires is a part of it."""
    seconds = scaled(600, 20)
    kept: dict[str, Any] = {"result_ttl": 10, "tombstone_ttl": 20, "idempotency_ttl": 20}
    worker = house.worker(slots=16, **kept)
    await house.model_is_known()
    environment: dict[str, Any] = {f"OAR_{name.upper()}": str(value) for name, value in kept.items()}
    async with house.api(**environment) as api:
        watch = Watch(house, {"api": api.process.pid, "worker": worker, "redis": house.valkey})
        end = time.monotonic() + seconds
        visitors = [Visitor(api.url, number, end) for number in range(6)]
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch.run())
            await asyncio.gather(*(visitor.stay() for visitor in visitors))
            await stop_tasks([watching])  # a cancel may be lost in a command
        log = api.log.read_text()
    growth = watch.growth()
    times = [duration for visitor in visitors for duration in visitor.seconds]
    figures["soak"] = {
        "seconds": seconds,
        "visits": sum(visitor.done.total() for visitor in visitors),
        **{kind: sum(visitor.done[kind] for visitor in visitors) for kind in sorted(visitors[0].done)},
        "p50_ms": round(1000 * percentile(times, 0.5)),
        "p99_ms": round(1000 * percentile(times, 0.99)),
        "growth": growth,
        "tenths": {name: values[:: max(1, len(values) // 10)] for name, values in watch.series.items()},
    }
    assert "Traceback" not in log
    if seconds < WARM_SECONDS:
        del growth["worker_rss_kib"]
    for name, value in growth.items():
        assert value < (10 if name.endswith("files") else ALLOWED_GROWTH_KIB), name
