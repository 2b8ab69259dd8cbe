"""HTTP as its clients know it: HEAD wherever GET is, Allow on every 405, a name on every answer and in every line."""

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from oar_wire.events import Completed
from oar_wire.job import ImageLink
from oar_wire.model import ModelInfo, WorkerInfo
from server.api.app import create_app
from server.jobs import scripts
from server.jobs.connection import RedisConnection
from server.jobs.embedded import EmbeddedRedis
from server.jobs.job import JobState
from server.jobs.store import Registry
from server.jobs.worker_queue import WorkerQueue
from server.observability.logging import JsonFormatter, TextFormatter
from server.settings import Settings
from tests.server.api_thread import ApiThread
from tests.server.uploads import encode, picture

pytestmark = pytest.mark.anyio

NAME = "x-request-id"
OWN = re.compile(r"req-[0-9a-f]{24}")
READABLE = {"GET", "HEAD"}


@pytest.fixture(scope="module")
def url(redis_server: EmbeddedRedis) -> Iterator[str]:
    with ApiThread(Settings(redis_url=redis_server.url, registry_seconds=0, max_body_bytes=2048)) as url:
        yield url


@pytest.fixture
async def client(url: str, connection: RedisConnection, model_info: ModelInfo) -> AsyncIterator[httpx.AsyncClient]:
    registry = Registry(connection)
    await registry.publish_models([model_info], {}, 600)
    await registry.workers.beat(WorkerInfo(name="test", models=("tiny",), slots=2, step_seconds=0.5), 60)
    async with httpx.AsyncClient(base_url=url, timeout=10) as client:
        yield client


@pytest.fixture
async def job(client: httpx.AsyncClient, connection: RedisConnection, settings: Settings) -> dict[str, Any]:
    """One that was completed by this test as its worker."""
    job = (await client.post("/v1/generations", json={"prompt": "a red circle"})).json()
    worker = WorkerQueue(connection, settings, "test", "tiny")
    await worker.open()
    item = await worker.take(1)
    assert item is not None
    claim = await worker.claim(item)
    assert claim is not None
    body = Completed(images=(ImageLink(index=0, url="/x"),), seconds=1).body()
    await scripts.run_many(
        connection, [worker.calls.finish(claim, JobState.COMPLETED, body, [encode(picture((12, 8)))])]
    )
    return job


def paths(app: FastAPI, method: str) -> list[str]:
    document = app.openapi()["paths"]
    return [path for path, methods in document.items() if method in methods]


PAGES = ["/", "/studio/app.js", "/docs", "/docs/docs.js", "/redoc", "/openapi.json", "/asyncapi.json"]


async def test_head_is_what_get_would_say(client: httpx.AsyncClient, job: dict[str, Any]) -> None:
    named = {"{job_id}": job["id"], "{index}": "0", "{name}": "tiny", "{kind}": "image"}
    asked = [*paths(create_app(Settings()), "get"), *PAGES]
    assert len(asked) > 14
    for template in asked:
        path = template
        for placeholder, value in named.items():
            path = path.replace(placeholder, value)
        head, get = await client.head(path), await client.get(path)
        assert head.status_code == get.status_code < 400, path
        assert head.content == b"", path
        assert {**head.headers, NAME: "", "date": ""} == {**get.headers, NAME: "", "date": ""} or path == "/metrics", (
            path
        )


async def test_head_of_a_stream_ends_at_once(client: httpx.AsyncClient) -> None:
    """And lets its place go: the job waits, and its GET would go on."""
    waiting = (await client.post("/v1/generations", json={"prompt": "a red circle"})).json()
    head = await client.head(waiting["events_url"])
    assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    while "oar_sse_connections 0.0" not in (await client.get("/metrics")).text:
        await asyncio.sleep(0.01)


async def test_head_says_what_is_not_there(client: httpx.AsyncClient) -> None:
    assert (await client.head("/v1/generations/gen-0")).status_code == 404
    assert (await client.head("/nothing")).status_code == 404
    refused = await client.head("/v1/edits")
    assert (refused.status_code, refused.headers["Allow"]) == (405, "POST")


async def test_every_405_says_what_is_allowed(client: httpx.AsyncClient) -> None:
    document = create_app(Settings()).openapi()["paths"]
    known = {path: {method.upper() for method in methods} for path, methods in document.items()}
    for path, methods in {**known, **{key: {"GET"} for key in PAGES}}.items():
        allowed = methods | READABLE if "GET" in methods else methods
        for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} - allowed:
            answer = await client.request(method, path.replace("{index}", "0"))
            assert answer.status_code == 405, (method, path)
            assert set(answer.headers["Allow"].split(", ")) == allowed, (method, path)


async def test_every_answer_has_a_name(client: httpx.AsyncClient, url: str) -> None:
    seen = set[str]()
    body = {"prompt": "a red circle"}
    answers = [
        *[await client.get(path) for path in (*PAGES, "/live", "/ready", "/metrics", "/v1/models", "/nothing")],
        await client.post("/v1/generations", json=body),
        await client.post("/v1/generations", json={}),
        await client.post("/v1/generations", content=b"{", headers={"content-type": "application/json"}),
        await client.post("/v1/generations", content=b"x" * 4096),
        await client.put("/v1/generations"),
        await client.get("/v1/models/"),
        await client.head("/live"),
        await client.get("/live", headers={"Host": "stranger.example"}),
        await client.post("/v1/generations", json=body, headers={"Origin": "https://stranger.example"}),
        await client.get("/studio/app.js", headers={"If-None-Match": "*"}),
    ]
    assert {answer.status_code for answer in answers} >= {200, 202, 304, 307, 308, 400, 403, 404, 405, 413, 421, 422}
    for answer in answers:
        assert OWN.fullmatch(answer.headers[NAME]), (answer.request.url, answer.status_code)
        seen.add(answer.headers[NAME])
    assert len(seen) == len(answers), "each its own"


async def test_a_mistake_of_ours_has_a_name_too(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_: Registry) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(Registry, "models", broken)
    answer = await client.get("/v1/models", headers={NAME: "mine-1"})
    assert (answer.status_code, answer.headers[NAME]) == (500, "mine-1")
    assert any(record.message == "unhandled error at GET /v1/models" for record in caplog.records)


async def test_a_client_may_choose_the_name(client: httpx.AsyncClient) -> None:
    assert (await client.get("/live", headers={NAME: "order-1729.b_C"})).headers[NAME] == "order-1729.b_C"
    for bad in ("", "a b", "x" * 129, 'a"b', "a=b"):
        assert OWN.fullmatch((await client.get("/live", headers={NAME: bad})).headers[NAME])


@pytest.mark.parametrize(
    "sent",
    [
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_answered_with_a_sentence(url: str, sent: bytes) -> None:
    port = httpx.URL(url).port or 0
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 400 ")
    assert re.search(rb"\r\nx-request-id: req-[0-9a-f]{24}", head)
    assert json.loads(body)["error"]["code"] == "invalid_http"


async def test_handshakes_have_names_whoever_refuses_them(url: str, client: httpx.AsyncClient) -> None:
    root = url.replace("http", "ws")
    job = (await client.post("/v1/generations", json={"prompt": "a red circle"})).json()
    async with connect(f"{root}{job['stream_url']}", additional_headers={NAME: "mine"}, proxy=None) as socket:
        assert socket.response is not None
        assert socket.response.headers.get_all(NAME) == ["mine"]
    for path, headers, status in (
        ("/nothing", {}, 404),
        ("/live", {}, 404),
        (job["stream_url"], {"Origin": "https://stranger.example"}, 403),
    ):
        with pytest.raises(InvalidStatus) as caught:
            async with connect(f"{root}{path}", additional_headers={NAME: "mine", **headers}, proxy=None):
                pass
        response = caught.value.response
        assert (response.status_code, response.headers.get_all(NAME)) == (status, ["mine"]), path
        assert json.loads(response.body)["error"]["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-WebSocket-Key": "short", "Sec-WebSocket-Version": "13"},
        {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version": "7"},
    ],
)
async def test_a_handshake_that_is_none_has_a_name(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", NAME: "mine", **headers}
    answer = await client.get("/v1/generations/gen-0/stream", headers=upgrade)
    assert answer.status_code in {400, 426}
    assert answer.headers.get_list(NAME) == ["mine"]


async def test_every_line_of_a_request_has_its_name(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handlers = [Kept(), Kept()]
    for handler, formatter in zip(handlers, (TextFormatter(), JsonFormatter())):
        handler.setFormatter(formatter)
        logging.getLogger("server").addHandler(handler)
    try:
        with caplog.at_level(logging.DEBUG, "server"):
            await client.get("/v1/models", headers={NAME: "mine-2"})
            while len(named := [line for line in lines if "GET /v1/models 200" in line]) < 2:
                await asyncio.sleep(0.01)
    finally:
        for handler in handlers:
            logging.getLogger("server").removeHandler(handler)
    text, as_json = named
    assert text.endswith(" request_id=mine-2")
    assert json.loads(as_json)["request_id"] == "mine-2"
    logging.getLogger("server").debug("outside of a request")


@pytest.mark.parametrize("index", ["00", "0.0", "+0", " 0", "0x0", "-0", "1e0", "\u0660"])
async def test_a_picture_has_one_address(client: httpx.AsyncClient, job: dict[str, Any], index: str) -> None:
    for rest in ("", "/painting"):
        answer = await client.get(f"{job['url']}/images/{index}{rest}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize("index", ["1", "-1", "9" * 18])
async def test_a_picture_that_is_not_there(client: httpx.AsyncClient, job: dict[str, Any], index: str) -> None:
    answer = await client.get(f"{job['url']}/images/{index}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "image_not_found")


async def test_a_websockets_address_says_so(client: httpx.AsyncClient, job: dict[str, Any]) -> None:
    """As a proxy that does not pass the handshake on makes it look."""
    answer = await client.get(job["stream_url"])
    assert (answer.status_code, answer.headers["Upgrade"]) == (426, "websocket")
    assert answer.json()["error"]["code"] == "websocket_only"
    assert job["events_url"] in answer.json()["error"]["message"]
    assert (await client.head(job["stream_url"])).status_code == 426
    assert (await client.post(job["stream_url"])).headers["Allow"] == "GET, HEAD"


async def test_an_empty_last_event_id_is_none(client: httpx.AsyncClient, job: dict[str, Any]) -> None:
    headers = {"Last-Event-ID": ""}
    assert (await client.get(job["events_url"], headers=headers)).text.startswith("id: 1\n")
    assert "id: 1\n" not in (await client.get(f"{job['events_url']}?after=1", headers=headers)).text


@pytest.mark.parametrize("size", ["64X64", "64*64", "", "64", "064x064", " 64x64 "])
async def test_a_complaint_about_the_size_is_a_sentence(client: httpx.AsyncClient, size: str) -> None:
    answer = await client.post("/v1/images/generations", json={"prompt": "x", "size": size})
    assert answer.json()["error"]["message"] == "size is auto, or a width and a height in pixels such as 1024x1024"


async def test_a_complaint_is_ours_alone(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/generations", json={"prompt": "a\0b"})
    assert answer.json()["error"]["message"] == "prompt: the text has a NUL character"
