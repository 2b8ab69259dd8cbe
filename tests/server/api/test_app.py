"""The API alone, with this test as the worker: overload, outage, expiry, places in the queue."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from oar_wire.events import Completed
from oar_wire.job import ImageLink
from oar_wire.model import ModelInfo, WorkerInfo
from server.jobs import keys, scripts
from server.jobs.connection import RedisConnection
from server.jobs.embedded import EmbeddedRedis
from server.jobs.job import JobState
from server.jobs.log import Claim, NewEvent
from server.jobs.store import Registry
from server.jobs.worker_queue import WorkerQueue
from server.settings import Settings
from tests.server.api_thread import ApiThread
from tests.waiting import HANG_SECONDS, wait_until

pytestmark = pytest.mark.anyio

BODY = {"prompt": "a red circle", "seed": 7}
LIMITS = {
    "queue_depth": 3,
    "max_sockets": 2,
    "sweep_seconds": 0.1,
    "registry_seconds": 0,
    "max_wait": 3600,
}


@pytest.fixture(scope="module")
def url(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = Settings(redis_url=redis_server.url, data_dir=tmp_path_factory.mktemp("api"), **LIMITS)
    with ApiThread(settings) as url:
        yield url


@pytest.fixture
def impatient_url(redis_server: EmbeddedRedis, tmp_path: Path) -> Iterator[str]:
    """Of an API that closes silent sockets soon."""
    with ApiThread(Settings(redis_url=redis_server.url, data_dir=tmp_path, **LIMITS, socket_idle=2.0)) as url:
        yield url


@pytest.fixture
async def client(url: str, connection: RedisConnection) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=HANG_SECONDS) as client:
        yield client


@pytest.fixture
async def worker(connection: RedisConnection, settings: Settings, model_info: ModelInfo) -> WorkerQueue:
    registry = Registry(connection)
    await registry.publish_models([model_info], {}, 60)
    await registry.workers.beat(WorkerInfo(name="test", models=("tiny",), slots=2, step_seconds=0.5), 60)
    worker = WorkerQueue(connection, settings.model_copy(update=LIMITS), "test", "tiny")
    await worker.open()
    return worker


async def take(worker: WorkerQueue) -> Claim:
    item = await worker.take(1)
    assert item is not None
    claim = await worker.claim(item)
    assert claim is not None
    return claim


async def finish(connection: RedisConnection, worker: WorkerQueue, claim: Claim) -> None:
    body = Completed(images=(ImageLink(index=0, url="/x"),), seconds=1).body()
    await scripts.run_many(connection, [worker.calls.finish(claim, JobState.COMPLETED, body, [b"png"])])


async def frames(url: str, job_id: str, after: int = 0) -> tuple[list[dict[str, Any]], int | None]:
    """All frames and the close code."""
    received: list[dict[str, Any]] = []
    async with connect(
        f"{url.replace('http', 'ws')}/v1/generations/{job_id}/stream?after={after}", open_timeout=HANG_SECONDS
    ) as socket:
        with contextlib.suppress(ConnectionClosed):
            while True:
                received.append(json.loads(await socket.recv()))
    return received, socket.close_code


async def expire(connection: RedisConnection) -> None:
    """As if `result_ttl` had passed since the last job ended: of jobs, tombstones alone are left."""
    names = [key for prefix in ("job", "ev", "pv", "img") for key in await connection.once("KEYS", f"{prefix}:*")]
    assert all([await connection.once("PTTL", name) > 0 for name in names])
    await connection.once("DEL", *names)


def code(answer: httpx.Response) -> str:
    return answer.json()["error"]["code"]


async def test_place_and_eta_come_from_the_known_lengths(client: httpx.AsyncClient, worker: WorkerQueue) -> None:
    answers = [(await client.post("/v1/generations", json={**BODY, "steps": 4})).json() for _ in range(3)]
    assert [answer["position"] for answer in answers] == [0, 1, 2]
    # 4 steps of 0.5 s each, and half of the row-steps ahead: there are two slots.
    assert [answer["eta"] for answer in answers] == [2.0, 3.0, 4.0]


async def test_a_running_job_is_at_position_0_and_has_an_estimate_of_what_is_left(
    client: httpx.AsyncClient, connection: RedisConnection, worker: WorkerQueue
) -> None:
    jobs = [(await client.post("/v1/generations", json={**BODY, "steps": 4})).json() for _ in range(2)]
    claim = await take(worker)
    status = (await client.get(jobs[0]["url"])).json()
    assert (status["status"], status["position"], status["eta"]) == ("running", 0, 2.0)
    event = NewEvent("patches", '{"image":0}')
    await scripts.run_many(connection, [worker.calls.emit(claim, claim.seq, [event, event])])
    status = (await client.get(jobs[0]["url"])).json()
    assert (status["position"], status["eta"]) == (0, 1.0), "two steps of four are left"
    await finish(connection, worker, claim)
    status = (await client.get(jobs[0]["url"])).json()
    assert (status["status"], status["position"], status["eta"]) == ("completed", None, None)


async def test_a_job_of_a_worker_that_tells_of_images_alone_has_them_among_its_outputs(
    client: httpx.AsyncClient, connection: RedisConnection, worker: WorkerQueue
) -> None:
    """A worker of the version before writes the ending; this one answers for it."""
    job = (await client.post("/v1/generations", json=BODY)).json()
    body = '{"images":[{"index":0,"url":"/v1/generations/x/images/0"}],"seconds":1.0}'
    claim = await take(worker)
    await scripts.run_many(connection, [worker.calls.finish(claim, JobState.COMPLETED, body, [b"png"])])
    status = (await client.get(job["url"])).json()
    assert status["images"] == [{"index": 0, "url": "/v1/generations/x/images/0"}]
    assert status["outputs"] == [
        {"kind": "image", "index": 0, "media_type": "image/png", "url": "/v1/generations/x/images/0"}
    ]
    output = await client.get(f"{job['url']}/outputs/image/0")
    assert (output.content, output.headers["content-type"]) == (b"png", "image/png")
    for path, status_code, error in [
        ("image/1", 404, "output_not_found"),
        ("frame/0", 404, "output_not_found"),
        ("sound/0", 404, "not_found"),
    ]:
        answer = await client.get(f"{job['url']}/outputs/{path}")
        assert (answer.status_code, code(answer)) == (status_code, error)


async def test_overload_is_told_quickly_and_says_when_to_come_back(
    client: httpx.AsyncClient, connection: RedisConnection, worker: WorkerQueue
) -> None:
    for _ in range(3):
        assert (await client.post("/v1/generations", json=BODY)).status_code == 202
    refused = await client.post("/v1/generations", json=BODY)
    # Three jobs of 3 steps of 0.5 s, in two slots.
    assert (refused.status_code, code(refused), refused.headers["Retry-After"]) == (429, "queue_full", "3")
    await finish(connection, worker, await take(worker))
    assert (await client.post("/v1/generations", json=BODY)).status_code == 202


async def test_prefer_wait_gives_up_with_202(client: httpx.AsyncClient, worker: WorkerQueue) -> None:
    start = time.monotonic()
    answer = await client.post("/v1/generations", json=BODY, headers={"Prefer": "respond-async, wait=1"})
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    assert time.monotonic() - start > 0.9


async def test_prefer_wait_answers_as_soon_as_the_job_ends(
    client: httpx.AsyncClient, connection: RedisConnection, worker: WorkerQueue
) -> None:
    waiting = asyncio.create_task(client.post("/v1/generations", json=BODY, headers={"Prefer": "wait=3600"}))
    await finish(connection, worker, await take(worker))
    assert (await waiting).status_code == 200


async def test_an_expired_job_is_gone_not_unknown(
    client: httpx.AsyncClient, connection: RedisConnection, worker: WorkerQueue, url: str
) -> None:
    job = (await client.post("/v1/generations", json=BODY)).json()
    await finish(connection, worker, await take(worker))
    assert (await client.get(f"{job['url']}/images/0?metadata=false")).content == b"png"
    await expire(connection)
    for path in (job["url"], f"{job['url']}/images/0"):
        answer = await client.get(path)
        assert (answer.status_code, code(answer)) == (410, "job_expired")
    (frame,), close_code = await frames(url, job["id"])
    assert (frame["error"]["code"], close_code) == ("job_expired", 4410)


async def test_expired_and_unknown_are_different_answers_everywhere(
    client: httpx.AsyncClient, connection: RedisConnection, worker: WorkerQueue, url: str
) -> None:
    expired = (await client.post("/v1/generations", json=BODY)).json()["id"]
    await finish(connection, worker, await take(worker))
    await expire(connection)
    for job_id, status, kind, closed in ((expired, 410, "job_expired", 4410), ("gen-no", 404, "job_not_found", 4404)):
        path = f"/v1/generations/{job_id}"
        for answer in (await client.get(path), await client.delete(path), await client.get(f"{path}/images/0")):
            assert (answer.status_code, code(answer)) == (status, kind)
        for after in (0, 3, 99):
            (frame,), close_code = await frames(url, job_id, after)
            assert (frame["error"]["code"], close_code) == (kind, closed)


async def test_the_idempotency_key_of_an_expired_job_says_expired(
    client: httpx.AsyncClient, connection: RedisConnection, worker: WorkerQueue
) -> None:
    headers = {"Idempotency-Key": "expired"}
    await client.post("/v1/generations", json=BODY, headers=headers)
    await finish(connection, worker, await take(worker))
    await expire(connection)
    answer = await client.post("/v1/generations", json=BODY, headers=headers)
    assert (answer.status_code, code(answer)) == (410, "job_expired")


async def test_a_full_queue_without_workers_is_503(
    client: httpx.AsyncClient, connection: RedisConnection, worker: WorkerQueue
) -> None:
    for _ in range(3):
        assert (await client.post("/v1/generations", json=BODY)).status_code == 202
    await Registry(connection).workers.leave("test")
    refused = await client.post("/v1/generations", json=BODY)
    assert (refused.status_code, code(refused)) == (503, "model_not_ready")
    assert int(refused.headers["Retry-After"]) >= 5


async def test_a_higher_priority_is_served_first(client: httpx.AsyncClient, worker: WorkerQueue) -> None:
    jobs = [
        (await client.post("/v1/generations", json={**BODY, "priority": priority})).json()
        for priority in ("low", "normal", "high")
    ]
    assert [job["position"] for job in jobs] == [0, 0, 0]
    positions = [(await client.get(job["url"])).json()["position"] for job in jobs]
    assert positions == [2, 1, 0]
    etas = [(await client.get(job["url"])).json()["eta"] for job in jobs]
    assert etas == sorted(etas, reverse=True)
    assert [(await take(worker)).job_id for _ in jobs] == [job["id"] for job in reversed(jobs)]


@pytest.mark.parametrize(
    ("body", "headers", "field"),
    [
        ({"deadline": 0}, {}, "deadline"),
        ({"deadline": -1}, {}, "deadline"),
        ({"deadline": "1"}, {}, "deadline"),
        ({"deadline": 1e6}, {}, "deadline"),
        ({}, {"Cancel-After": "soon"}, "Cancel-After"),
        ({}, {"Cancel-After": "-1"}, "Cancel-After"),
        ({}, {"Cancel-After": "0"}, "Cancel-After"),
        ({}, {"Cancel-After": "1e3"}, "Cancel-After"),
        ({}, {"Cancel-After": "1000000"}, "deadline"),
    ],
)
async def test_a_bad_deadline_names_its_field(
    client: httpx.AsyncClient, worker: WorkerQueue, body: dict[str, Any], headers: dict[str, str], field: str
) -> None:
    answer = await client.post("/v1/generations", json={**BODY, **body}, headers=headers)
    assert (answer.status_code, code(answer)) == (422, "invalid_deadline")
    assert answer.json()["error"]["field"] == field


@pytest.mark.parametrize("path", ["/v1/generations", "/v1/images/generations"])
async def test_a_bad_priority_names_its_field(client: httpx.AsyncClient, worker: WorkerQueue, path: str) -> None:
    answer = await client.post(path, json={**BODY, "priority": "urgent"})
    status = 400 if path.startswith("/v1/images/") else 422
    assert (answer.status_code, code(answer)) == (status, "invalid_priority")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_openai_request_fails_at_its_deadline(
    client: httpx.AsyncClient, worker: WorkerQueue, stream: bool
) -> None:
    body = {**BODY, "deadline": 0.2, "stream": stream}
    answer = await client.post("/v1/images/generations", json=body)
    if stream:
        (error,) = [line for line in answer.text.splitlines() if '"error"' in line]
        assert json.loads(error.removeprefix("data: "))["error"]["code"] == "deadline_exceeded"
    else:
        assert (answer.status_code, code(answer)) == (500, "deadline_exceeded")
    late = await client.post("/v1/images/generations", json={**body, "deadline": 1e6})
    assert (late.status_code, code(late)) == (400, "invalid_deadline")


async def test_a_higher_priority_is_served_first_for_openais_clients_too(
    client: httpx.AsyncClient, worker: WorkerQueue
) -> None:
    first = (await client.post("/v1/generations", json=BODY)).json()
    asking = asyncio.create_task(client.post("/v1/images/generations", json={**BODY, "priority": "high"}))

    async def is_second() -> bool:
        return (await client.get(first["url"])).json()["position"] == 1

    await wait_until(is_second)
    claim = await take(worker)
    assert (claim.priority, claim.job_id != first["id"]) == ("high", True)
    await client.delete(f"/v1/generations/{claim.job_id}")
    asking.cancel()
    await asyncio.wait([asking])


@pytest.mark.parametrize(
    ("body", "headers"),
    [({"deadline": 0.3}, {}), ({}, {"Cancel-After": "0.3"}), ({"deadline": 0.3}, {"Cancel-After": "60"}),
     ({"deadline": 60}, {"Cancel-After": "0.3"})],
)  # fmt: skip
async def test_a_waiting_job_ends_at_its_deadline_though_nobody_works(
    client: httpx.AsyncClient, worker: WorkerQueue, url: str, body: dict[str, Any], headers: dict[str, str]
) -> None:
    job = (await client.post("/v1/generations", json={**BODY, **body}, headers=headers)).json()
    assert job["params"]["deadline"] == 0.3

    async def is_failed() -> bool:
        return (await client.get(job["url"])).json()["status"] == "failed"

    await wait_until(is_failed)
    assert (await client.get(job["url"])).json()["error"]["code"] == "deadline_exceeded"
    events, close_code = await frames(url, job["id"])
    assert ([event["type"] for event in events], close_code) == (["queued", "failed"], 1000)


async def test_a_worker_that_stops_is_not_ready(
    client: httpx.AsyncClient, connection: RedisConnection, worker: WorkerQueue
) -> None:
    assert (await client.get("/ready")).status_code == 200
    stopping = WorkerInfo(name="test", models=("tiny",), slots=2, step_seconds=0.5, is_draining=True)
    await Registry(connection).workers.beat(stopping, 5)
    assert (await client.get("/ready")).status_code == 503


async def test_a_live_stream_follows_the_log(
    client: httpx.AsyncClient, connection: RedisConnection, worker: WorkerQueue, url: str
) -> None:
    job = (await client.post("/v1/generations", json=BODY)).json()
    reading = asyncio.create_task(frames(url, job["id"]))
    claim = await take(worker)
    for seq in range(2, 5):
        await asyncio.sleep(0.05)  # so that some are followed and not replayed; they are the same
        await scripts.run_many(connection, [worker.calls.emit(claim, seq, [NewEvent("patches", '{"image":0}')])])
    await finish(connection, worker, claim)
    events, close_code = await reading
    assert [event["type"] for event in events] == ["queued", "started", "patches", "patches", "patches", "completed"]
    assert [event["seq"] for event in events] == [1, 2, 3, 4, 5, 6]
    assert {event["job_id"] for event in events} == {job["id"]}
    assert close_code == 1000


async def test_a_socket_without_events_is_closed_to_be_opened_again(worker: WorkerQueue, impatient_url: str) -> None:
    async with httpx.AsyncClient(base_url=impatient_url, timeout=HANG_SECONDS) as client:
        job = (await client.post("/v1/generations", json=BODY)).json()
    events, close_code = await frames(impatient_url, job["id"])
    assert ([event["type"] for event in events], close_code) == (["queued"], 1013)


class DeafClient:
    """Opens a stream and reads nothing until it is told to; its buffers are as small as the kernel allows."""

    async def open(self, url: str, job_id: str) -> None:
        address = httpx.URL(url)
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        raw.connect((address.host, address.port))
        raw.setblocking(False)
        self._raw = raw
        self._uri = f"ws://{address.host}:{address.port}/v1/generations/{job_id}/stream"
        self._socket = await connect(
            self._uri, sock=raw, max_queue=1, max_size=None, compression=None, open_timeout=HANG_SECONDS
        )

    async def read(self) -> tuple[list[dict[str, Any]], int | None, str | None]:
        """All that comes now, the close code and its reason."""
        received: list[dict[str, Any]] = []
        with contextlib.suppress(ConnectionClosed):
            while True:
                received.append(json.loads(await self._socket.recv()))
        return received, self._socket.close_code, self._socket.close_reason

    async def close(self) -> None:
        await self._socket.close()
        self._raw.close()


@pytest.fixture
async def deaf() -> AsyncIterator[DeafClient]:
    client = DeafClient()
    yield client
    await client.close()


def big_preview(number: int) -> NewEvent:
    return NewEvent("preview", json.dumps({"image": 0, "number": number, "data": "x" * 400_000}))


def check_slow(received: list[dict[str, Any]]) -> None:
    assert received[-1]["type"] == "completed"
    assert [event["number"] for event in received if event["type"] == "patches"] == list(range(40))
    previews = [event["number"] for event in received if event["type"] == "preview"]
    assert previews[-1] == 39
    assert len(previews) < 30, "stale ones were left out"
    seqs = [event["seq"] for event in received]
    assert seqs == sorted(set(seqs))


async def test_a_slow_client_gets_the_newest_preview_and_every_patch(
    client: httpx.AsyncClient, connection: RedisConnection, worker: WorkerQueue, url: str, deaf: DeafClient
) -> None:
    """Sixteen megabytes of previews would wait for it otherwise, all but the last of them worthless."""
    job = (await client.post("/v1/generations", json=BODY)).json()
    await deaf.open(url, job["id"])
    claim = await take(worker)
    for number in range(40):
        events = [NewEvent("patches", json.dumps({"image": 0, "number": number})), big_preview(number)]
        await scripts.run_many(connection, [worker.calls.emit(claim, 2 + 2 * number, events)])
        await asyncio.sleep(0.02)
    await finish(connection, worker, claim)
    received, close_code, _ = await deaf.read()
    assert close_code == 1000
    check_slow(received)


async def test_a_slow_reader_of_server_sent_events_gets_them_too(
    client: httpx.AsyncClient, connection: RedisConnection, worker: WorkerQueue, url: str
) -> None:
    job = (await client.post("/v1/generations", json=BODY)).json()
    address = httpx.URL(url)
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    raw.settimeout(HANG_SECONDS)
    raw.connect((address.host, address.port))
    raw.sendall(f"GET {job['events_url']} HTTP/1.0\r\n\r\n".encode())
    claim = await take(worker)
    for number in range(40):
        events = [NewEvent("patches", json.dumps({"image": 0, "number": number})), big_preview(number)]
        await scripts.run_many(connection, [worker.calls.emit(claim, 2 + 2 * number, events)])
        await asyncio.sleep(0.02)
    await finish(connection, worker, claim)

    def read() -> str:
        with raw:
            return b"".join(iter(lambda: raw.recv(1 << 20), b"")).decode()

    text = await asyncio.to_thread(read)
    received = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]
    check_slow(received)


async def test_a_client_that_does_not_read_is_closed_and_told_where_it_was(
    redis_server: EmbeddedRedis, connection: RedisConnection, worker: WorkerQueue
) -> None:
    """It is closed after one timeout, and may hear why for another: who is too late for that has to ask again."""
    for seconds in (2.0, 10.0, 60.0):
        settings = Settings(redis_url=redis_server.url, socket_send_timeout=seconds)
        if await hears_why_it_was_closed(settings, connection, worker):
            return
    raise AssertionError("it never heard why")


async def hears_why_it_was_closed(settings: Settings, connection: RedisConnection, worker: WorkerQueue) -> bool:
    deaf = DeafClient()
    with ApiThread(settings) as url:
        async with httpx.AsyncClient(base_url=url, timeout=HANG_SECONDS) as client:
            job = (await client.post("/v1/generations", json=BODY)).json()
            await deaf.open(url, job["id"])
            claim = await take(worker)
            events = [NewEvent("patches", json.dumps({"image": 0, "data": "x" * 400_000})) for _ in range(40)]
            await scripts.run_many(connection, [worker.calls.emit(claim, 2, events)])

            async def is_closed() -> bool:
                return "oar_ws_slow_client_closed_total 1.0" in (await client.get("/metrics")).text

            await wait_until(is_closed)
            received, close_code, reason = await deaf.read()
            await deaf.close()
            last = received.pop()
            if "error" not in last:
                await finish(connection, worker, claim)
                return False
            assert (last["error"]["code"], close_code) == ("slow_client", 1013)
            assert last["seq"] == received[-1]["seq"]
            assert reason == f"slow_client seq={last['seq']}"
            assert [event["seq"] for event in received] == list(range(1, last["seq"] + 1))
            await finish(connection, worker, claim)
            rest, _ = await frames(url, job["id"], last["seq"])
            assert [event["seq"] for event in rest] == list(range(last["seq"] + 1, 44))
            return True


async def test_sockets_are_limited(client: httpx.AsyncClient, worker: WorkerQueue, url: str) -> None:
    job = (await client.post("/v1/generations", json=BODY)).json()
    target = f"{url.replace('http', 'ws')}{job['stream_url']}"

    async def first_frame() -> dict[str, Any]:
        async with connect(target, open_timeout=HANG_SECONDS) as socket:
            return json.loads(await socket.recv())

    async with contextlib.AsyncExitStack() as stack:
        for _ in range(2):
            socket = await stack.enter_async_context(connect(target, open_timeout=HANG_SECONDS))
            assert json.loads(await socket.recv())["type"] == "queued"
        assert (await first_frame())["error"]["code"] == "too_many_sockets"

    async def is_free() -> bool:
        return "error" not in await first_frame()

    await wait_until(is_free)  # closed sockets no longer count


async def test_no_model_yet_is_not_an_unknown_model(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/generations", json=BODY)
    assert (answer.status_code, code(answer), answer.headers["Retry-After"]) == (503, "model_not_ready", "2")
    assert (await client.get("/ready")).status_code == 503


async def test_a_model_that_no_worker_serves_takes_no_jobs_and_says_so(
    client: httpx.AsyncClient, connection: RedisConnection, worker: WorkerQueue, model_info: ModelInfo
) -> None:
    """It was listed for ever, and its jobs waited for nobody."""
    registry = Registry(connection)
    assert (await client.get("/v1/models/tiny")).json()["workers"] == 1
    headers = {"Idempotency-Key": "once"}
    waiting = (await client.post("/v1/generations", json=BODY, headers=headers)).json()
    assert (waiting["workers"], waiting["notice"]) == (1, None)
    await registry.workers.leave("test")
    refused = await client.post("/v1/generations", json=BODY)
    assert (refused.status_code, code(refused), refused.headers["Retry-After"]) == (503, "model_not_ready", "5")
    assert refused.json()["error"]["message"] == "no worker serves the model 'tiny' now"
    again = await client.post("/v1/generations", json=BODY, headers=headers)
    assert again.json()["id"] == waiting["id"], "what was accepted before is told again"
    told = (await client.get(waiting["url"])).json()
    assert (told["status"], told["workers"]) == ("queued", 0)
    assert told["notice"] == "no worker serves the model 'tiny' now; the job goes on when one does"
    (entry,) = (await client.get("/v1/models")).json()["data"]
    assert (entry["id"], entry["workers"]) == ("tiny", 0)
    assert (await client.get("/ready")).status_code == 503
    await connection.once("DEL", keys.model_key("tiny"), keys.DEFAULT_MODEL)  # its grace is over
    assert (await client.get("/v1/models")).json()["data"] == []
    unknown = await client.post("/v1/generations", json={**BODY, "model": "tiny"})
    assert (unknown.status_code, code(unknown)) == (404, "model_not_found")
    assert (await client.get(waiting["url"])).json()["workers"] == 0
    assert await registry.served_models() == ["tiny"], "operators see it as long as jobs wait for it"
    await client.delete(waiting["url"])
    assert await registry.served_models() == []


async def test_a_draining_worker_serves_no_model(
    client: httpx.AsyncClient, connection: RedisConnection, worker: WorkerQueue
) -> None:
    info = WorkerInfo(name="test", models=("tiny",), slots=2, is_draining=True)
    await Registry(connection).workers.beat(info, 60)
    assert (await client.get("/v1/models/tiny")).json()["workers"] == 0
    assert code(await client.post("/v1/generations", json=BODY)) == "model_not_ready"


async def test_a_silent_worker_is_not_ready(
    client: httpx.AsyncClient, connection: RedisConnection, model_info: ModelInfo
) -> None:
    registry = Registry(connection)
    await registry.publish_models([model_info], {}, 60)
    await registry.workers.beat(WorkerInfo(name="test", models=("tiny",), slots=2), 60)
    assert (await client.get("/ready")).status_code == 200
    await connection.once("PEXPIRE", keys.worker_key("test"), 1)
    await asyncio.sleep(0.1)
    assert (await client.get("/ready")).status_code == 503


async def test_without_redis_the_api_lives_and_says_so(tmp_path: Path, model_info: ModelInfo) -> None:
    server = EmbeddedRedis(tmp_path)
    server.start()
    connection = RedisConnection(server.url)
    registry = Registry(connection)
    await registry.publish_models([model_info], {}, 60)
    await registry.workers.beat(WorkerInfo(name="test", models=("tiny",), slots=2), 60)
    with ApiThread(Settings(redis_url=server.url, **LIMITS)) as url:
        async with httpx.AsyncClient(base_url=url, timeout=HANG_SECONDS) as client:
            job = (await client.post("/v1/generations", json=BODY)).json()
            await connection.close()
            target = f"{url.replace('http', 'ws')}{job['stream_url']}"
            async with connect(target, open_timeout=HANG_SECONDS) as socket:
                assert json.loads(await socket.recv())["type"] == "queued"
                server.stop()
                assert json.loads(await socket.recv())["error"]["code"] == "redis_unavailable"
                await socket.wait_closed()
                assert socket.close_code == 1013
            for answer in (await client.post("/v1/generations", json=BODY), await client.get(job["url"]),
                           await client.get("/ready"), await client.delete(job["url"])):  # fmt: skip
                assert (answer.status_code, code(answer)) == (503, "redis_unavailable")
                assert int(answer.headers["Retry-After"]) >= 1
            assert (await client.get("/live")).status_code == 200
            assert (await client.get("/metrics")).status_code == 200
            server.start()
            assert (await client.get(job["url"])).json()["status"] == "queued", "the job survived"
    server.stop()
