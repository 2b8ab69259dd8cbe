"""One tenant's uploads, held by a switch: whoever else reads, edits or watches meanwhile does not notice."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from oar_wire.events import Completed
from oar_wire.job import ImageLink
from oar_wire.model import ModelInfo, WorkerInfo
from server.api import edits, images, painting, pictures, uploads
from server.jobs import scripts
from server.jobs.connection import RedisConnection
from server.jobs.embedded import EmbeddedRedis
from server.jobs.job import JobState
from server.jobs.store import Registry
from server.jobs.worker_queue import WorkerQueue
from server.settings import Settings
from tests.server.api.test_app import code, take
from tests.server.api_thread import ApiThread
from tests.server.tenants import Keys, bearer, write_keys
from tests.server.uploads import encode, mask, picture

pytestmark = pytest.mark.anyio

SIZE = (12, 8)  # of the model that the test is the worker of
NUM_UPLOADS = 20
GOOD = {"image": encode(picture(SIZE)), "mask": encode(mask(SIZE, (1, 1, 5, 5)))}


class Switch:
    """Holds calls of functions in the threads that they run in, for uploads that say so, until it is opened."""

    def __init__(self) -> None:
        self.num_held = 0
        self._is_open = threading.Event()
        self._lock = threading.Lock()

    def hold(self) -> None:
        with self._lock:
            self.num_held += 1
        assert self._is_open.wait(120)

    def open(self) -> None:
        self._is_open.set()


@pytest.fixture
def switch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Switch]:
    switch = Switch()

    def prepare(image: uploads.Upload, *args: Any) -> uploads.EditSource:
        if image.data == b"held":
            switch.hold()
        return uploads.prepare(image, *args)

    monkeypatch.setattr(edits, "prepare", prepare)
    monkeypatch.setattr(images, "prepare", prepare)
    yield switch
    switch.open()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return write_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def url(redis_server: EmbeddedRedis, keys: Keys, tmp_path: Path) -> Iterator[str]:
    """Of an API with two threads a kind, of which a tenant has one."""
    settings = Settings(redis_url=redis_server.url, data_dir=tmp_path, api_keys=keys.path, registry_seconds=0)
    with ApiThread(settings) as url:
        yield url


@pytest.fixture
async def one(url: str, keys: Keys) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=100)
    async with httpx.AsyncClient(base_url=url, timeout=60, headers=bearer(keys.one), limits=limits) as client:
        yield client


@pytest.fixture
async def other(url: str, keys: Keys) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=60, headers=bearer(keys.other)) as client:
        yield client


@pytest.fixture
async def worker(connection: RedisConnection, settings: Settings, model_info: ModelInfo) -> WorkerQueue:
    registry = Registry(connection)
    await registry.publish_models([model_info], {}, 60)
    await registry.workers.beat(WorkerInfo(name="test", models=("tiny",), slots=2, step_seconds=0.5), 60)
    worker = WorkerQueue(connection, settings, "test", "tiny")
    await worker.open()
    return worker


@pytest.fixture
async def image_url(other: httpx.AsyncClient, connection: RedisConnection, worker: WorkerQueue) -> str:
    """Of a finished picture of the other tenant."""
    return await finished(other, connection, worker)


async def finished(client: httpx.AsyncClient, connection: RedisConnection, worker: WorkerQueue) -> str:
    job = (await client.post("/v1/generations", json={"prompt": "a red circle"})).json()
    link = ImageLink(index=0, url=f"{job['url']}/images/0")
    body = Completed(images=(link,), seconds=1).body()
    claim = await take(worker)
    await scripts.run_many(connection, [worker.calls.finish(claim, JobState.COMPLETED, body, [encode(picture(SIZE))])])
    return link.url


async def upload(client: httpx.AsyncClient, image: bytes = b"held", path: str = "/v1/edits") -> httpx.Response:
    files = {"image": image, "mask": GOOD["mask"]}
    return await client.post(path, data={"prompt": "a red circle"}, files=files)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_so():
            await asyncio.sleep(0.005)


async def until_waiting(client: httpx.AsyncClient, work: str, count: int) -> None:
    line = f'oar_pictures_waiting{{work="{work}"}} {count}.0'
    async with asyncio.timeout(60):
        while line not in (await client.get("/metrics")).text:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("path", "status"), [("/v1/edits", 422), ("/v1/images/edits", 400)])
async def test_uploads_of_one_tenant_delay_nobody_else(
    one: httpx.AsyncClient, other: httpx.AsyncClient, image_url: str, switch: Switch, path: str, status: int
) -> None:
    held = [asyncio.create_task(upload(one, path=path)) for _ in range(NUM_UPLOADS)]
    await until_waiting(other, "decode", NUM_UPLOADS - 1)
    assert switch.num_held == 1, "the tenant's share of two threads"
    for query in ("", "?metadata=false", "?format=webp", "?format=jpeg&compression=50"):
        assert (await other.get(f"{image_url}{query}")).status_code == 200
    assert (await other.get(f"{image_url}/painting")).status_code == 200
    assert (await upload(other, GOOD["image"])).status_code == 202
    assert not any(task.done() for task in held)
    switch.open()
    answers = await asyncio.gather(*held)
    assert {(answer.status_code, code(answer)) for answer in answers} == {(status, "invalid_image")}


async def test_uploads_beyond_the_share_are_refused_and_the_rest_is_answered(
    one: httpx.AsyncClient, other: httpx.AsyncClient, image_url: str, switch: Switch
) -> None:
    """Half of 64 places wait, and one runs."""
    held = [asyncio.create_task(upload(one)) for _ in range(33)]
    await until_waiting(other, "decode", 32)
    refused = await upload(one)
    assert (refused.status_code, code(refused)) == (429, "picture_share_full")
    assert int(refused.headers["Retry-After"]) >= 1
    openai = await upload(one, path="/v1/images/edits")
    assert (openai.status_code, code(openai), openai.json()["error"]["type"]) == (
        429,
        "picture_share_full",
        "rate_limit_error",
    )
    assert (await one.get("/v1/models")).status_code == 200
    assert (await upload(other, GOOD["image"])).status_code == 202
    switch.open()
    assert {answer.status_code for answer in await asyncio.gather(*held)} == {422}
    assert (await upload(one, GOOD["image"])).status_code == 202


async def test_who_leaves_while_waiting_is_not_decoded(
    one: httpx.AsyncClient, other: httpx.AsyncClient, image_url: str, switch: Switch
) -> None:
    """What a client that has left sent is decoded at most; nothing of it stays."""
    held = [asyncio.create_task(upload(one)) for _ in range(4)]
    await until_waiting(other, "decode", 3)
    for task in held:
        task.cancel()
    switch.open()
    await until_waiting(other, "decode", 0)
    assert (await upload(one, GOOD["image"])).status_code == 202


@pytest.mark.parametrize(
    ("module", "name", "query"), [(pictures, "render", "?format=webp"), (painting, "animate", "/painting")]
)
async def test_renditions_of_one_tenant_delay_nobody_else(
    one: httpx.AsyncClient,
    other: httpx.AsyncClient,
    image_url: str,
    connection: RedisConnection,
    worker: WorkerQueue,
    switch: Switch,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
    query: str,
) -> None:
    """They are held in their own threads, and uploads and other renditions have others."""
    original, is_held = getattr(module, name), [True]

    def held_once(*args: Any, **options: Any) -> bytes:
        if is_held:
            is_held.clear()
            switch.hold()
        return original(*args, **options)

    own_url = await finished(one, connection, worker)
    monkeypatch.setattr(module, name, held_once)
    held = [asyncio.create_task(one.get(f"{own_url}{query}"))]
    await until(lambda: switch.num_held == 1)
    held += [asyncio.create_task(one.get(f"{own_url}{query}")) for _ in range(4)]
    await until_waiting(other, {"render": "encode", "animate": "animate"}[name], 4)
    for part in ("", "?format=webp", "/painting"):
        assert (await other.get(f"{image_url}{part}")).status_code == 200
    assert (await one.get(own_url)).status_code == 200, "a PNG is not encoded again"
    assert (await upload(one, GOOD["image"])).status_code == 202
    switch.open()
    assert {answer.status_code for answer in await asyncio.gather(*held)} == {200}
