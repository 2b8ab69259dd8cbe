"""Hostile bodies while others paint: their pictures are those of an undisturbed run, and their GETs are answered."""

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.chaos.harness import Atelier, House, percentile, scaled
from tests.server.hostile import FORM_TYPE, form_bodies, json_bodies
from tests.server.tenants import bearer, write_keys
from tests.server.tiny import NUM_TOKENS
from tests.server.uploads import bomb, encode, many_scans, mask, progressive, text_bomb, webp_bomb

pytestmark = pytest.mark.anyio

UPLOAD_BYTES = 8_380_000  # a little less than the default limits
BODY_BYTES = 131_000
ATTACKERS = 6
PAINTERS = 3
ANSWERS = {202, 400, 413, 422, 429, 503}  # 202: a picture with megabytes of compressed text is one all the same
PROMPT = "a red circle"


def bombs() -> dict[str, bytes]:
    """Pictures that cost more than they look."""
    return {
        "png": bomb(),
        "webp": webp_bomb(),
        "text": text_bomb(),
        "scans": many_scans(),
        "progressive": progressive((2000, 2000), 63),
    }


def attacks() -> list[tuple[str, dict[str, Any]]]:
    """Each as a path and the request's other arguments. A few megabytes in all are made once."""
    found: list[tuple[str, dict[str, Any]]] = []
    for size, path in ((UPLOAD_BYTES, "/v1/edits"), (BODY_BYTES, "/v1/generations")):
        for body in json_bodies(size).values():
            found.append((path, {"content": body, "headers": {"content-type": "application/json"}}))
    for body in form_bodies(UPLOAD_BYTES).values():
        found.append(("/v1/images/edits", {"content": body, "headers": {"content-type": FORM_TYPE}}))
    for image in bombs().values():
        files = {"image": image, "mask": encode(mask())}
        found += [("/v1/edits", {"data": {"prompt": PROMPT}, "files": files})] * 4
    return found


async def attack(
    client: httpx.AsyncClient,
    turns: list[tuple[str, dict[str, Any]]],
    key: str,
    statuses: Counter[int],
    is_over: asyncio.Event,
) -> None:
    """Sends one after the other, round and round."""
    number = 0
    while not is_over.is_set():
        path, request = turns[number % len(turns)]
        headers = {**request.get("headers", {}), **bearer(key)}
        answer = await client.post(path, **{**request, "headers": headers})
        statuses[answer.status_code] += 1
        number += 1


async def paint(client: httpx.AsyncClient, key: str, seed: int) -> tuple[str, list[bytes]]:
    """A job's id and its pictures, as its tenant gets them."""
    headers = bearer(key)
    body = {"prompt": PROMPT, "seed": seed, "steps": NUM_TOKENS, "guidance": 2.0, "n": 2}
    while (answer := await client.post("/v1/generations", json=body, headers=headers)).status_code != 202:
        assert answer.status_code in {429, 503}, answer.text
        await asyncio.sleep(0.2)
    url = answer.json()["url"]
    while (status := (await client.get(url, headers=headers)).json())["status"] in {"queued", "running"}:
        await asyncio.sleep(0.1)
    assert status["status"] == "completed", status
    pngs: list[bytes] = []
    for image in status["images"]:
        got = await client.get(image["url"], params={"metadata": "false"}, headers=headers)
        assert got.status_code == 200, got.text
        pngs.append(got.content)
    return status["id"], pngs


async def ask(client: httpx.AsyncClient, key: str, seconds: dict[str, list[float]], is_over: asyncio.Event) -> None:
    """What a tenant's page asks for all the time; every GET is answered."""
    headers = bearer(key)
    while not is_over.is_set():
        for path in ("/live", "/v1/models", "/v1/generations"):
            start = time.monotonic()
            answer = await client.get(path, headers=headers)
            seconds.setdefault(path, []).append(time.monotonic() - start)
            assert answer.status_code == 200, answer.text
        await asyncio.sleep(0.05)


async def test_hostile_bodies_change_nothing_for_those_who_paint(
    house: House, atelier: Atelier, figures: dict[str, Any], tmp_path: Path
) -> None:
    keys = write_keys(tmp_path)
    house.worker(slots=8)
    await house.model_is_known()
    jobs = scaled(100, 12)
    statuses, seconds, is_over = Counter[int](), dict[str, list[float]](), asyncio.Event()
    painted: list[tuple[str, list[bytes]]] = []
    turns = attacks()
    async with (
        house.api(OAR_API_KEYS=str(keys.path)) as api,
        httpx.AsyncClient(base_url=api.url, timeout=300) as hostile,
        httpx.AsyncClient(base_url=api.url, timeout=120) as client,
    ):

        async def paint_some(first: int) -> None:
            for seed in range(first, jobs, PAINTERS):
                painted.append(await paint(client, keys.other, seed))

        async with asyncio.TaskGroup() as group:
            for number in range(ATTACKERS):
                start = number * len(turns) // ATTACKERS
                group.create_task(attack(hostile, turns[start:] + turns[:start], keys.one, statuses, is_over))
            group.create_task(ask(client, keys.other, seconds, is_over))
            await asyncio.gather(*(paint_some(first) for first in range(PAINTERS)))
            is_over.set()
        log = api.log.read_text()
    equal = 0
    for job_id, pngs in painted:
        job = await house.queue.load(job_id)
        await house.sound_log(job_id)
        equal += pngs == atelier.paint(job.params)
    figures["hostile_company"] = {
        "jobs": jobs,
        "equal": equal,
        "bodies": statuses.total(),
        "statuses": dict(sorted(statuses.items())),
        "gets": sum(map(len, seconds.values())),
        **{f"{path} p50, max ms": [round(1000 * percentile(s, q)) for q in (0.5, 1)] for path, s in seconds.items()},
    }
    assert equal == jobs
    assert statuses.total() > ATTACKERS
    assert set(statuses) <= ANSWERS
    assert "Traceback" not in log
