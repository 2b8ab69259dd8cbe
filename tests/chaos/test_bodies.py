"""Hostile bodies as large as their route takes: what they cost the others, and how much memory."""

import asyncio
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.chaos.harness import House, rss
from tests.server.hostile import FORM_TYPE, form_bodies, json_bodies

pytestmark = pytest.mark.anyio

UPLOAD_BYTES = 8_380_000  # a little less than the default limits
BODY_BYTES = 131_000
MAX_GROWTH = 10  # times the body
SPARE_BYTES = 16 << 20  # what any request may take: small bodies are not what memory is for
CASES = [
    *(("/v1/edits", "application/json", *case) for case in json_bodies(UPLOAD_BYTES).items()),
    *(("/v1/edits", FORM_TYPE, *case) for case in form_bodies(UPLOAD_BYTES).items()),
    *(("/v1/images/edits", FORM_TYPE, *case) for case in form_bodies(UPLOAD_BYTES).items()),
    *(("/v1/generations", "application/json", *case) for case in json_bodies(BODY_BYTES).items()),
    *(("/v1/images/generations", "application/json", *case) for case in json_bodies(BODY_BYTES).items()),
]


def peak(pid: int) -> int:
    """Most resident bytes since `forget_peak`."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


@contextmanager
def probed(url: str) -> Generator[list[float]]:
    """Asks `/live` from a thread and collects the seconds of each answer; the last one begins within the block."""
    seconds: list[float] = []
    is_over = threading.Event()

    def probe() -> None:
        with httpx.Client(base_url=url, timeout=120) as client:
            while not is_over.wait(0.002):
                start = time.monotonic()
                client.get("/live").raise_for_status()
                seconds.append(time.monotonic() - start)

    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(probe)
        try:
            yield seconds
        finally:
            is_over.set()
            task.result()


def refuse_all(url: str, pid: int, figures: dict[str, Any]) -> set[int]:
    """Sends every body and returns the statuses that came back."""
    live: dict[str, float] = {}
    growth: dict[str, float] = {}
    statuses: set[int] = set()
    with httpx.Client(base_url=url, timeout=120) as client:
        for path, kind, name, body in CASES:
            forget_peak(pid)
            before = rss(pid) << 10
            with probed(url) as seconds:
                statuses.add(client.post(path, content=body, headers={"content-type": kind}).status_code)
            grown = peak(pid) - before
            assert grown <= MAX_GROWTH * len(body) + SPARE_BYTES, f"{path} {name}: {grown} bytes"
            live[f"{path}: {name}"] = max(seconds, default=0)
            if len(body) > 1 << 20:
                growth[f"{path}: {name}"] = grown / len(body)
    worst, largest = max(live, key=lambda case: live[case]), max(growth, key=lambda case: growth[case])
    figures["hostile_bodies"] = {
        "bodies": len(CASES),
        "slowest_live_ms": round(1000 * live[worst], 1),
        "while": worst,
        "most_growth": round(growth[largest], 1),  # times the body, of bodies of more than a mebibyte
        "of": largest,
    }
    return statuses


async def test_hostile_bodies_cost_their_sender_alone(house: House, figures: dict[str, Any]) -> None:
    async with house.api() as api:
        statuses = await asyncio.to_thread(refuse_all, api.url, api.process.pid, figures)
    assert statuses <= {400, 422, 503}, "503: there is no worker, so that what is well formed is refused too"
