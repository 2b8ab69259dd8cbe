"""How often a request asks Redis, counted by Valkey's MONITOR on the other side of the real client."""

from collections.abc import AsyncIterator

import httpx
import pytest
from redis import Redis
from tokenizers import Tokenizer
from tokenizers.models import BPE

from oar_wire.model import ModelInfo, WorkerInfo
from server.jobs import keys, scripts
from server.jobs.connection import RedisConnection
from server.jobs.store import Registry
from server.settings import Settings
from tests.server.api_thread import ApiThread
from tests.waiting import HANG_SECONDS

pytestmark = pytest.mark.anyio

BODY = {"prompt": "a red circle", "seed": 7}
END = "ECHO end"


class Monitor:
    """All commands that clients send; those that scripts send are part of their script's trip."""

    def __init__(self, url: str) -> None:
        self._client: Redis = Redis.from_url(url, socket_timeout=HANG_SECONDS)
        self._marker: Redis = Redis.from_url(url)

    def __enter__(self) -> "Monitor":
        self._marker.ping()  # its connection is there before anything is counted
        self._monitor = self._client.monitor()
        self._monitor.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._monitor.__exit__(*error)
        self._client.close()
        self._marker.close()

    def trips(self) -> list[str]:
        """What was asked since the last call, without what an API process asks beside requests."""
        self._marker.execute_command("ECHO", "end")
        found: list[str] = []
        for entry in self._monitor.listen():
            command: str = entry["command"]
            if command == END:
                return [name for name in map(name_of, found) if name not in BESIDE]
            if entry["client_type"] != "lua" and not command.startswith("CLIENT "):  # as of a new connection
                found.append(command)
        raise AssertionError("the monitor has ended")


def name_of(command: str) -> str:
    """A script by its name."""
    words = command.split()
    names = {scripts.script(name).digest: name for name in ("submit", "look", "cancel", "sweep", "take_due")}
    return names.get(words[1], command) if words[0] == "EVALSHA" else command


BESIDE = {"sweep", "take_due", f"GET {keys.DATA_ID}"}


@pytest.fixture
async def url(connection: RedisConnection, settings: Settings, model_info: ModelInfo) -> AsyncIterator[str]:
    """It knows which models and workers there are, and Redis knows the scripts."""
    registry = Registry(connection)
    await registry.publish_models([model_info], {"tiny": Tokenizer(BPE()).to_str()}, 600)
    await registry.workers.beat(WorkerInfo(name="test", models=("tiny",), slots=2), 600)
    with ApiThread(settings.model_copy(update={"registry_seconds": 3600.0})) as url:
        async with httpx.AsyncClient(base_url=url, timeout=HANG_SECONDS) as client:
            job_id = (await client.post("/v1/generations", json=BODY)).json()["id"]
            await client.get(f"/v1/generations/{job_id}")
        yield url


async def test_a_submit_and_a_look_are_one_trip_each(url: str, settings: Settings) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=HANG_SECONDS) as client:
        with Monitor(str(settings.redis_url)) as monitor:
            first = await client.post("/v1/generations", json=BODY)
            assert (first.status_code, first.json()["position"]) == (202, 1)
            assert monitor.trips() == ["submit"]
            look = await client.get(f"/v1/generations/{first.json()['id']}")
            assert look.json() == first.json()
            assert monitor.trips() == ["look"]
            assert (await client.get("/v1/generations/gen-never")).status_code == 404
            assert monitor.trips() == ["look"]


async def test_a_repeated_submit_is_one_trip_too(url: str, settings: Settings) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=HANG_SECONDS) as client:
        headers = {"Idempotency-Key": "once"}
        first = await client.post("/v1/generations", json=BODY, headers=headers)
        with Monitor(str(settings.redis_url)) as monitor:
            again = await client.post("/v1/generations", json=BODY, headers=headers)
            assert again.json() == first.json()
            assert monitor.trips() == ["submit"]
            other = await client.post("/v1/generations", json={**BODY, "seed": 8}, headers=headers)
            assert other.status_code == 422
            assert monitor.trips() == ["submit"]


async def test_a_job_that_has_ended_is_looked_at_in_one_trip(url: str, settings: Settings) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=HANG_SECONDS) as client:
        job_id = (await client.post("/v1/generations", json=BODY)).json()["id"]
        await client.delete(f"/v1/generations/{job_id}")
        with Monitor(str(settings.redis_url)) as monitor:
            assert (await client.get(f"/v1/generations/{job_id}")).json()["status"] == "canceled"
            assert monitor.trips() == ["look"]
