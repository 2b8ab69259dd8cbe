"""Who gets in: every route and socket asks for a key, and a job is its tenant's alone."""

import asyncio
import contextlib
import json
import os
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import anyio.to_thread
import httpx
import openai
import pytest
from click.testing import CliRunner
from starlette.routing import BaseRoute
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from oar_cli import main
from oar_wire.model import ModelInfo, WorkerInfo
from server.api.app import create_app
from server.api.gate import METRICS, OPEN, OPEN_FOLDERS
from server.api.keyring import hash_key, read_key_file
from server.jobs.connection import RedisConnection
from server.jobs.embedded import EmbeddedRedis
from server.jobs.store import Registry
from server.jobs.worker_queue import WorkerQueue
from server.settings import Settings
from tests.server.api.test_app import expire, finish, take
from tests.server.api_thread import ApiThread
from tests.server.tenants import Keys, bearer, protocols, write_keys
from tests.waiting import HANG_SECONDS, wait_for, wait_until

pytestmark = pytest.mark.anyio

BODY = {"prompt": "a red circle", "seed": 7}
METRICS_KEY = "a-key-for-the-metrics"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return write_keys(tmp_path_factory.mktemp("keys"), other='rate = 0\npriority_ceiling = "normal"\nmax_sockets = 1')


@pytest.fixture(scope="module")
def url(redis_server: EmbeddedRedis, keys: Keys) -> Iterator[str]:
    settings = Settings(redis_url=redis_server.url, api_keys=keys.path, metrics_key=METRICS_KEY, registry_seconds=0)
    with ApiThread(settings) as url:
        yield url


@pytest.fixture
async def one(url: str, keys: Keys, connection: RedisConnection) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=HANG_SECONDS, headers=bearer(keys.one)) as client:
        yield client


@pytest.fixture
async def other(url: str, keys: Keys, connection: RedisConnection) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=HANG_SECONDS, headers=bearer(keys.other)) as client:
        yield client


@pytest.fixture
async def worker(connection: RedisConnection, settings: Settings, model_info: ModelInfo) -> WorkerQueue:
    registry = Registry(connection)
    await registry.publish_models([model_info], {}, 60)
    await registry.workers.beat(WorkerInfo(name="test", models=("tiny",), slots=2, step_seconds=0.5), 60)
    worker = WorkerQueue(connection, settings, "test", "tiny")
    await worker.open()
    return worker


def code(answer: httpx.Response) -> str:
    return answer.json()["error"]["code"]


# every route


def leaves(routes: Iterable[BaseRoute], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Method and address of each route, `WS` for a websocket; a mounted application counts with one address in it."""
    for route in routes:
        inner: Any = getattr(route, "original_router", None)
        if inner is not None:
            yield from leaves(inner.routes, prefix)
            continue
        path = prefix + re.sub(r"{[^}]*}", "0", str(getattr(route, "path", "")))
        nested = getattr(route, "routes", None)
        if nested is not None:
            yield from leaves(nested, path)
            yield "GET", f"{path}/anything"
        else:
            yield from ((method, path) for method in getattr(route, "methods", None) or ("WS",))


def opens(method: str, path: str) -> bool:
    return method in {"GET", "HEAD"} and (path in OPEN or path.startswith(OPEN_FOLDERS))


ROUTES = sorted(set(leaves(create_app(Settings()).routes)))
GUARDED = [route for route in ROUTES if not opens(*route) and route[0] != "WS"]  # sockets are tested below


def test_the_walk_finds_what_the_document_lists() -> None:
    paths = create_app(Settings()).openapi()["paths"]
    listed = {(method.upper(), re.sub(r"{[^}]*}", "0", path)) for path, methods in paths.items() for method in methods}
    assert listed <= set(ROUTES)
    assert ("WS", "/v1/generations/0/stream") in ROUTES


def test_only_these_are_open() -> None:
    """Whoever opens another one changes this line, and thinks about it."""
    pages = {"/", "/docs", "/redoc"}
    assert {"/live", "/ready", "/openapi.json", "/asyncapi.json"} | pages == OPEN
    assert OPEN_FOLDERS == ("/studio/", "/docs/")


@pytest.mark.parametrize(("method", "path"), GUARDED)
async def test_every_route_asks_for_a_key(url: str, method: str, path: str) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=HANG_SECONDS) as client:
        for headers, challenge in (
            ({}, 'Bearer realm="oar"'),
            ({"Authorization": "Basic b25lOm9uZQ=="}, 'Bearer realm="oar"'),
            (bearer("oar_wrong"), 'Bearer realm="oar", error="invalid_token"'),
        ):
            answer = await client.request(method, path, headers=headers)
            assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, challenge)
            if method == "HEAD":
                continue
            assert code(answer) == "invalid_api_key"
            assert ("param" in answer.json()["error"]) == path.startswith(("/v1/images/", "/v1/models"))
            assert "oar_wrong" not in answer.text


@pytest.mark.parametrize("path", sorted({path for _, path in ROUTES if path in OPEN}))
async def test_what_is_open_answers_without_a_key(url: str, worker: WorkerQueue, path: str) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=HANG_SECONDS) as client:
        assert (await client.get(path)).status_code in {200, 308}
        assert (await client.post(path)).status_code == 401, "reading is open, and nothing else"


async def test_the_metrics_have_a_key_of_their_own(url: str, keys: Keys, connection: RedisConnection) -> None:
    """Prometheus is no tenant, and a tenant is not to read what others do."""
    async with httpx.AsyncClient(base_url=url, timeout=HANG_SECONDS) as client:
        assert (await client.get(METRICS)).status_code == 401
        assert (await client.get(METRICS, headers=bearer(keys.one))).status_code == 401
        assert (await client.get(METRICS, headers=bearer(METRICS_KEY))).status_code == 200
        assert (await client.get("/v1/models", headers=bearer(METRICS_KEY))).status_code == 401


async def test_an_address_that_does_not_exist_asks_for_a_key_first(url: str, one: httpx.AsyncClient) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=HANG_SECONDS) as client:
        assert (await client.get("/v2/anything")).status_code == 401
        assert (await client.get("/metrics/")).status_code == 401
        assert (await client.get("/live/../v1/models")).status_code == 401
    assert (await one.get("/v2/anything")).status_code == 404


async def test_a_large_body_is_refused_without_being_read_as_one(url: str) -> None:
    """The answer has to reach a client that still writes: it is no broken connection."""
    async with httpx.AsyncClient(base_url=url, timeout=HANG_SECONDS) as client:
        answer = await client.post("/v1/edits", files={"image": b"x" * (9 << 20)})
    assert (answer.status_code, code(answer)) == (401, "invalid_api_key")


@pytest.mark.parametrize("spelling", ["Bearer {}", "bearer {}", "BEARER  {} "])
async def test_the_scheme_is_spelt_as_one_likes(url: str, keys: Keys, worker: WorkerQueue, spelling: str) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=HANG_SECONDS) as client:
        headers = {"Authorization": spelling.format(keys.one).strip()}
        assert (await client.get("/v1/models", headers=headers)).status_code == 200


async def test_bytes_that_are_no_text_are_a_wrong_key(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=HANG_SECONDS) as client:
        for sent in (b"Bearer \xff\xfe", b"Bearer " + b"x" * 8000, "Bearer ключ".encode()):
            answer = await client.get("/v1/models", headers=[(b"Authorization", sent)])
            assert (answer.status_code, code(answer)) == (401, "invalid_api_key")


async def test_oar_top_asks_with_the_keys_of_its_environment(
    url: str, keys: Keys, worker: WorkerQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def top() -> Any:
        words = ["top", "--json", "--interval", "0.1", "--url", url]
        return await anyio.to_thread.run_sync(lambda: CliRunner().invoke(main, words))

    result = await top()
    assert (result.exit_code, "set OAR_METRICS_KEY" in result.output) == (77, True), result.output
    monkeypatch.setenv("OAR_METRICS_KEY", METRICS_KEY)
    result = await top()
    assert (result.exit_code, "set OAR_API_KEY" in result.output) == (77, True), result.output
    monkeypatch.setenv("OAR_API_KEY", keys.one)
    result = await top()
    assert (result.exit_code, json.loads(result.output)["url"]) == (0, url)


# sockets


async def listen(url: str, job_id: str, **options: Any) -> tuple[list[dict[str, Any]], int | None, str | None]:
    """Frames, close code and the protocol that was agreed on."""
    received: list[dict[str, Any]] = []
    async with connect(
        f"{url.replace('http', 'ws')}/v1/generations/{job_id}/stream", open_timeout=HANG_SECONDS, **options
    ) as socket:
        with contextlib.suppress(ConnectionClosed):
            while True:
                received.append(json.loads(await socket.recv()))
    return received, socket.close_code, socket.subprotocol


def ways(key: str) -> list[dict[str, Any]]:
    """As a program sends a key, as a browser does, and both."""
    return [
        {"additional_headers": bearer(key)},
        {"subprotocols": protocols(key)},
        {"additional_headers": bearer(key), "subprotocols": ["oar.v1"]},
    ]


@pytest.mark.parametrize("way", [0, 1, 2])
async def test_a_socket_takes_the_key_as_programs_and_as_browsers_send_it(
    url: str, keys: Keys, one: httpx.AsyncClient, connection: RedisConnection, worker: WorkerQueue, way: int
) -> None:
    job = (await one.post("/v1/generations", json=BODY)).json()
    await finish(connection, worker, await take(worker))
    events, close_code, protocol = await listen(url, job["id"], **ways(keys.one)[way])
    assert ([event["type"] for event in events], close_code) == (["queued", "started", "completed"], 1000)
    assert protocol == (None if way == 0 else "oar.v1"), "the protocol with the key is never said back"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"subprotocols": ["oar.v1"]},
        {"subprotocols": ["oar.v1", "oar.key."]},
        {"subprotocols": ["oar.v1", "oar.key.!!"]},
        *ways("oar_wrong"),
    ],
)
async def test_a_socket_without_a_valid_key_is_told_so(
    url: str, one: httpx.AsyncClient, worker: WorkerQueue, options: dict[str, Any]
) -> None:
    """As a frame and a close code: a page cannot read the status of a handshake that failed."""
    job = (await one.post("/v1/generations", json=BODY)).json()
    (frame,), close_code, protocol = await listen(url, job["id"], **options)
    assert (frame["error"]["code"], frame["seq"], close_code) == ("invalid_api_key", 0, 4401)
    assert protocol == ("oar.v1" if "subprotocols" in options else None), "or a browser would say nothing but 1006"


async def test_an_open_server_answers_the_protocol_too(
    redis_server: EmbeddedRedis, connection: RedisConnection, worker: WorkerQueue
) -> None:
    with ApiThread(Settings(redis_url=redis_server.url, registry_seconds=0)) as url:
        async with httpx.AsyncClient(base_url=url, headers=bearer("none")) as client:
            job = (await client.post("/v1/generations", json=BODY)).json()
        await finish(connection, worker, await take(worker))
        for options in ({"subprotocols": ["oar.v1"]}, *ways("anything")):
            events, close_code, _ = await listen(url, job["id"], **options)
            assert (events[-1]["type"], close_code) == ("completed", 1000)


# whose a job is


async def test_a_job_is_its_tenants_alone(
    url: str,
    keys: Keys,
    one: httpx.AsyncClient,
    other: httpx.AsyncClient,
    connection: RedisConnection,
    worker: WorkerQueue,
) -> None:
    """Others hear that there is no such job: neither that there is one, nor that there was."""
    job = (await one.post("/v1/generations", json=BODY)).json()
    paths = [job["url"], job["events_url"], f"{job['url']}/images/0"]

    async def check(status: int) -> None:
        strange = [await other.get(path) for path in paths] + [await other.delete(job["url"])]
        unknown = [await other.get(path.replace(job["id"], "gen-0")) for path in paths]
        for answer in strange + unknown:
            assert (answer.status_code, code(answer)) == (404, "job_not_found")
        (frame,), close_code, _ = await listen(url, job["id"], additional_headers=bearer(keys.other))
        assert (frame["error"]["code"], close_code) == ("job_not_found", 4404)
        assert (await one.get(job["url"])).status_code == status

    await check(200)
    await finish(connection, worker, await take(worker))
    await check(200)
    assert (await one.get(f"{job['url']}/images/0?metadata=false")).content == b"png"
    await expire(connection)
    await check(410)


async def test_an_idempotency_key_is_its_tenants_alone(
    one: httpx.AsyncClient, other: httpx.AsyncClient, worker: WorkerQueue
) -> None:
    headers = {"Idempotency-Key": "the-same"}
    first = (await one.post("/v1/generations", json=BODY, headers=headers)).json()["id"]
    answer = await other.post("/v1/generations", json={**BODY, "seed": 8}, headers=headers)
    assert answer.status_code == 202, "no conflict with what another tenant said"
    assert answer.json()["id"] != first
    assert (await one.post("/v1/generations", json=BODY, headers=headers)).json()["id"] == first


async def test_a_priority_above_the_ceiling_is_refused_and_the_default_is_not(
    one: httpx.AsyncClient, other: httpx.AsyncClient, worker: WorkerQueue
) -> None:
    high = {**BODY, "priority": "high"}
    assert (await one.post("/v1/generations", json=high)).status_code == 202
    for path in ("/v1/generations", "/v1/images/generations"):
        answer = await other.post(path, json=high)
        assert (answer.status_code, code(answer)) == (403, "priority_not_allowed")
        error = answer.json()["error"]
        assert error.get("field", error.get("param")) == "priority"
    assert (await other.post("/v1/generations", json=BODY)).status_code == 202


async def test_sockets_of_a_tenant_are_limited(
    url: str, keys: Keys, one: httpx.AsyncClient, other: httpx.AsyncClient, worker: WorkerQueue
) -> None:
    job = (await other.post("/v1/generations", json=BODY)).json()
    target = f"{url.replace('http', 'ws')}{job['stream_url']}"
    async with connect(target, open_timeout=HANG_SECONDS, additional_headers=bearer(keys.other)) as socket:
        await socket.recv()
        (frame,), close_code, _ = await listen(url, job["id"], additional_headers=bearer(keys.other))
        assert (frame["error"]["code"], close_code) == ("too_many_sockets", 1013)
        answer = await other.get(job["events_url"])
        assert (answer.status_code, code(answer)) == (503, "too_many_sockets")
        mine = (await one.post("/v1/generations", json=BODY)).json()
        async with connect(
            f"{url.replace('http', 'ws')}{mine['stream_url']}", additional_headers=bearer(keys.one)
        ) as free:
            assert json.loads(await free.recv())["type"] == "queued", "another tenant has room"


# too often


@pytest.fixture(scope="module")
def slow_keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return write_keys(tmp_path_factory.mktemp("slow"), one="rate = 0.001\nburst = 3", other="rate = 0.001\nburst = 1")


@pytest.fixture
def slow_url(redis_server: EmbeddedRedis, slow_keys: Keys, connection: RedisConnection) -> Iterator[str]:
    with ApiThread(Settings(redis_url=redis_server.url, api_keys=slow_keys.path, registry_seconds=0)) as url:
        yield url


async def test_who_asks_too_often_is_told_when_to_come_back(
    slow_url: str, slow_keys: Keys, worker: WorkerQueue
) -> None:
    async with httpx.AsyncClient(base_url=slow_url, headers=bearer(slow_keys.one)) as client:
        answers = [await client.get("/v1/models") for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200] * 3 + [429] * 2
        assert code(answers[-1]) == "rate_limited"
        assert int(answers[-1].headers["Retry-After"]) == 60, "OpenAI's clients ignore a longer one"
        native = await client.get("/v1/generations/gen-0")
        assert 500 < int(native.headers["Retry-After"]) <= 1000
        refused = await client.post("/v1/images/generations", json=BODY)
        assert refused.json()["error"]["type"] == "rate_limit_error"
    (frame,), close_code, _ = await listen(slow_url, "gen-0", **ways(slow_keys.one)[1])
    assert (frame["error"]["code"], close_code) == ("rate_limited", 1013)
    async with httpx.AsyncClient(base_url=slow_url, headers=bearer(slow_keys.other)) as client:
        assert (await client.get("/v1/models")).status_code == 200, "a bucket for each tenant"
        for _ in range(5):
            assert (await client.get("/live")).status_code == 200, "what is open is not counted"


async def test_openais_client_understands_the_refusals(slow_url: str, slow_keys: Keys, worker: WorkerQueue) -> None:
    def client(key: str) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{slow_url}/v1", api_key=key, max_retries=0)

    async with client(slow_keys.other) as good, client("oar_wrong") as bad:
        assert [model.id for model in (await good.models.list()).data] == ["tiny"]
        with pytest.raises(openai.RateLimitError):
            await good.images.generate(prompt="x")
        with pytest.raises(openai.AuthenticationError) as caught:
            await bad.images.generate(prompt="x")
        assert caught.value.code == "invalid_api_key"


# the file


async def until_status(client: httpx.AsyncClient, status: int) -> None:
    async def is_status() -> bool:
        return (await client.get("/v1/models")).status_code == status

    await wait_until(is_status)  # the file is read again


async def test_a_changed_file_is_read_and_a_broken_one_changes_nothing(
    redis_server: EmbeddedRedis, worker: WorkerQueue, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = write_keys(tmp_path)
    good, seen = keys.path.read_text(), "API keys stay as they were"
    with ApiThread(Settings(redis_url=redis_server.url, api_keys=keys.path)) as url:
        async with httpx.AsyncClient(base_url=url, headers=bearer(keys.one)) as client:
            await until_status(client, 200)
            for broken in ("", "[tenants", good.replace("sha256:", "md5:"), good.replace("rate = 0", "rate = -1")):
                caplog.clear()
                keys.path.write_text(broken)
                await asyncio.to_thread(wait_for, lambda: seen in caplog.text)
                assert (await client.get("/v1/models")).status_code == 200
            caplog.clear()
            keys.path.unlink()
            await asyncio.to_thread(wait_for, lambda: seen in caplog.text)
            assert (await client.get("/v1/models")).status_code == 200
            replacement = tmp_path / "replacement"
            replacement.write_text(good.replace("tenants.one", "tenants.uno").partition("[tenants.other]")[0])
            os.replace(replacement, keys.path)
            async with httpx.AsyncClient(base_url=url, headers=bearer(keys.other)) as taken_back:
                await until_status(taken_back, 401)
            assert (await client.get("/v1/models")).status_code == 200


def test_a_mark_at_the_start_of_the_key_file_is_nothing(tmp_path: Path) -> None:
    """Editors on Windows write one."""
    path = tmp_path / "keys.toml"
    path.write_bytes(f'\ufeff[tenants.one]\nkeys = ["{hash_key("a" * 43)}"]\n'.encode())
    assert list(read_key_file(path).tenants) == ["one"]
