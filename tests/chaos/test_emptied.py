"""Redis that is emptied again and again amid submits, streams, edits and kills: it heals by itself, and every client is
told how its job ended."""

import asyncio
import shutil
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from oar_client import AsyncClient
from oar_client.errors import JobCanceled, JobFailed, NotFound
from oar_client.retry import Patience
from oar_wire.events import TERMINAL_TYPES
from server.jobs.embedded import AOF_FOLDER
from server.jobs.store import Registry
from tests.chaos.harness import Api, House, dice, is_alive, kill, scaled, until
from tests.server.tiny import NUM_TOKENS
from tests.server.uploads import encode, mask, picture

pytestmark = pytest.mark.anyio

LOST_LINE = "Redis has lost its data: "
PROMPT = "a red circle"
PATIENCE = Patience(seconds=120, first_contact=120, longest_pause=0.5)
RETRIED = {429, 503}
# How a job may end for who asked for it, by the table of docs/reliability.md.
TERMINAL = {"completed", "canceled", "data_lost"}
DOCUMENTED = {*TERMINAL, "job_lost", "job_not_found"}


class LostError(Exception):
    """The answer to a submit was `job_lost`."""


@dataclass
class Visitor:
    """Asks for one picture after the other and follows each to its end, in the ways that clients have."""

    url: Callable[[], str]
    seed: int
    is_over: asyncio.Event
    endings: Counter[str] = field(default_factory=Counter[str])
    job_ids: list[str] = field(default_factory=list[str])

    async def stay(self) -> None:
        chance = dice(self.seed)
        async with (
            AsyncClient(self.url(), patience=PATIENCE) as ours,
            httpx.AsyncClient(base_url=self.url(), timeout=60) as plain,
        ):
            ways: tuple[Callable[[], Awaitable[str]], ...] = (
                lambda: self._watched(ours),
                lambda: self._edited(ours),
                lambda: self._canceled(ours),
                lambda: self._waited(plain),
                lambda: self._heard(plain),
                lambda: self._asked_again(plain),
            )
            while not self.is_over.is_set():
                self.options = {"seed": chance.randrange(1 << 40), "steps": NUM_TOKENS, "guidance": 2.0}
                way = chance.choice(ways)
                try:
                    self.endings[await way()] += 1
                except LostError:
                    self.endings["job_lost"] += 1
                except (JobFailed, JobCanceled, NotFound) as error:
                    self.endings["canceled" if isinstance(error, JobCanceled) else error.code] += 1

    async def _watched(self, client: AsyncClient) -> str:
        job = await client.submit(PROMPT, **self.options)
        self.job_ids.append(job.id)
        last = ""
        async for event in job.events():
            last = event.type if event.type != "failed" else event.error.code  # type: ignore[union-attr]
        return last

    async def _edited(self, client: AsyncClient) -> str:
        job = await client.submit_edit(encode(picture()), encode(mask()), PROMPT, steps=2)
        self.job_ids.append(job.id)
        await job.wait()
        return "completed"

    async def _canceled(self, client: AsyncClient) -> str:
        job = await client.submit(PROMPT, **self.options)
        self.job_ids.append(job.id)
        await job.cancel()
        await job.wait()
        return "completed"  # it was faster

    async def _waited(self, client: httpx.AsyncClient) -> str:
        """`Prefer: wait`, then asks again and again."""
        return await self._end_of(client, await self._submit(client, {"Prefer": "wait=30"}))

    async def _asked_again(self, client: httpx.AsyncClient) -> str:
        return await self._end_of(client, await self._submit(client, {}))

    async def _heard(self, client: httpx.AsyncClient) -> str:
        """Server-sent events; taken up again where they broke."""
        job_id, seq = await self._submit(client, {}), 0
        while True:
            try:
                headers = {"Last-Event-ID": str(seq)}
                async with client.stream("GET", f"/v1/generations/{job_id}/events", headers=headers) as answer:
                    if answer.status_code in RETRIED:
                        await asyncio.sleep(0.1)
                        continue
                    if answer.status_code != 200:
                        return httpx.Response(answer.status_code, content=await answer.aread()).json()["error"]["code"]
                    kind = ""
                    async for line in answer.aiter_lines():
                        name, _, value = line.partition(": ")
                        if name == "id":
                            seq = int(value)
                        elif name == "event":
                            kind = value
                        elif name == "data" and kind in TERMINAL_TYPES:
                            return _ending(httpx.Response(200, content=value).json(), kind)
                        elif name == "data" and kind == "error" and '"job_lost"' in value:
                            return "job_lost"
            except httpx.TransportError:
                await asyncio.sleep(0.1)

    async def _submit(self, client: httpx.AsyncClient, headers: dict[str, str]) -> str:
        """Submits until it is accepted; returns the job's id. Raises LostError."""
        key = {"Idempotency-Key": f"{self.seed}-{self.options['seed']}"}
        while True:
            try:
                answer = await client.post(
                    "/v1/generations", json={"prompt": PROMPT, **self.options}, headers={**headers, **key}
                )
            except httpx.TransportError:
                await asyncio.sleep(0.1)
                continue
            if answer.status_code in {200, 202}:
                self.job_ids.append(answer.json()["id"])
                return self.job_ids[-1]
            assert answer.status_code in RETRIED, answer.text
            if answer.json()["error"]["code"] == "job_lost":
                raise LostError
            await asyncio.sleep(0.1)

    async def _end_of(self, client: httpx.AsyncClient, job_id: str) -> str:
        while True:
            body = await read(client, job_id)
            if "error" in body and "status" not in body:
                return body["error"]["code"]
            if body["status"] in TERMINAL_TYPES:
                return _ending(body, body["status"])
            await asyncio.sleep(0.1)


def _ending(body: dict[str, Any], kind: str) -> str:
    return kind if kind != "failed" else body["error"]["code"]


async def read(client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    """What the API says of a job, once it says anything."""
    while True:
        try:
            answer = await client.get(f"/v1/generations/{job_id}")
        except httpx.TransportError:
            answer = None
        if answer is not None and answer.status_code not in RETRIED:
            return answer.json()
        await asyncio.sleep(0.1)


async def empty(house: House, *, is_replaced: bool) -> None:
    """FLUSHALL, or a kill after which the server finds an empty folder."""
    if not is_replaced:
        await house.connection.once("FLUSHALL")
        return
    valkey = house.valkey
    shutil.rmtree(house.redis.folder / AOF_FOLDER)
    kill(valkey, signal.SIGKILL)
    await until(house.connection.is_alive)


def lost_lines(house: House, api: Api) -> tuple[list[str], list[str]]:
    """What the API and the workers logged of losses."""
    texts = (api.log.read_text(), house.nursery_log.read_text())
    ours, theirs = ([line for line in text.splitlines() if LOST_LINE in line] for text in texts)
    return ours, theirs


async def heals(house: House, api: Api) -> None:
    """Nobody restarts anything: models are published again, and the API takes jobs."""
    await until(Registry(house.connection).models)
    async with httpx.AsyncClient(base_url=api.url, timeout=10) as client:

        async def is_ready() -> bool:
            try:
                return (await client.get("/ready")).status_code == 200
            except httpx.TransportError:
                return False

        await until(is_ready)


async def test_a_redis_that_is_emptied_amid_everything(house: House, figures: dict[str, Any]) -> None:
    chance, rounds = dice(24), scaled(40, 6)
    workers = {folder: house.worker(folder, slots=4, step_seconds=0.03) for folder in ("one", "two")}
    await house.model_is_known()
    kills: Counter[str] = Counter()
    known: list[int] = []
    async with house.api(OAR_CANCELED_TTL="3600") as api:  # however long its client is kept waiting
        await heals(house, api)
        is_over = asyncio.Event()
        visitors = [Visitor(lambda: api.url, number, is_over) for number in range(8)]
        visits = [asyncio.create_task(visitor.stay()) for visitor in visitors]

        async def kill_something() -> None:
            if chance.random() < 0.3:
                await api.restart_after_kill()
                kills["api"] += 1
            else:
                folder = chance.choice(list(workers))
                kill(workers[folder], signal.SIGKILL)
                await until(lambda: gone(workers[folder]))
                workers[folder] = house.worker(folder, slots=4, step_seconds=0.03)
                kills["worker"] += 1

        async def is_told(before: int) -> Callable[[], Awaitable[bool]]:
            async def told() -> bool:
                return sum(map(len, lost_lines(house, api))) > before

            return told

        for number in range(rounds):
            done = sum(visitor.endings.total() for visitor in visitors)
            if chance.random() < 0.5:
                await kill_something()
                await heals(house, api)
            before = sum(map(len, lost_lines(house, api)))
            await empty(house, is_replaced=bool(number % 2))
            if chance.random() < 0.5:
                await kill_something()
            await until(await is_told(before))
            await heals(house, api)

            async def went_on(done: int = done) -> bool:
                for visit in visits:
                    if visit.done():
                        visit.result()
                return sum(visitor.endings["completed"] for visitor in visitors) > 0 and (
                    sum(visitor.endings.total() for visitor in visitors) >= done + 8
                )

            await until(went_on, 120)
        is_over.set()
        await asyncio.wait_for(asyncio.gather(*visits), 180)
        endings = sum((visitor.endings for visitor in visitors), Counter[str]())
        ids = [job_id for visitor in visitors for job_id in visitor.job_ids]
        async with httpx.AsyncClient(base_url=api.url, timeout=20) as client:
            after = Counter([await final(client, job_id) for job_id in ids])
        lines = lost_lines(house, api)
        known = [int(line.split(LOST_LINE)[1].split()[0]) for line in (*lines[0], *lines[1])]
        log = api.log.read_text()
    figures["redis_emptied"] = {
        "times": rounds,
        "kills": dict(kills),
        "jobs": len(ids),
        "told": dict(endings),
        "afterwards": dict(after),
        "log_lines": len(known),
        "jobs_known_in_them": [min(known), max(known)],
    }
    assert set(endings) <= DOCUMENTED
    assert set(after) <= {*TERMINAL, "job_not_found"}
    assert endings["completed"] > 0
    assert sum(known) > 0, "the log says how many jobs were known"
    assert "Traceback" not in log
    assert all(is_alive(pid) for pid in workers.values())


async def final(client: httpx.AsyncClient, job_id: str) -> str:
    """How a job that a client once knew is told when all is over."""
    body = await read(client, job_id)
    if "status" not in body:
        assert "Redis lost its data at" in body["error"]["message"]
        return body["error"]["code"]
    return _ending(body, body["status"])


async def gone(pid: int) -> bool:
    return not is_alive(pid)
