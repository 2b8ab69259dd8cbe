"""Streams over connections that break: no event twice, none missing, whatever breaks them."""

import json
import os
import random
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oar_client import Canvas, Client, Completed, ConnectionFailed, Patience, UnknownEvent
from oar_wire.events import ENVELOPE
from oar_wire.job import ImageLink
from oar_wire.model import GenerationDefaults, ModelInfo, WorkerInfo
from server.jobs import scripts
from server.jobs.connection import RedisConnection
from server.jobs.embedded import EmbeddedRedis
from server.jobs.job import JobState
from server.jobs.log import Claim, NewEvent
from server.jobs.store import Registry
from server.jobs.worker_queue import WorkerQueue
from server.settings import Settings
from tests.client.blocking import Loop
from tests.client.conftest import QUICK, Open
from tests.client.cutting import CuttingProxy
from tests.server.api.test_app import ApiThread
from tests.server.live import LiveServer
from tests.server.tiny import NUM_TOKENS
from tests.waiting import HANG_SECONDS, wait_for

LONG = {"n": 12, "steps": NUM_TOKENS, "guidance": 3.0, "seed": 11}
SHORT = {"n": 3, "steps": NUM_TOKENS, "seed": 5}


def facts(event: Any) -> Any:
    """As it is sent."""
    return event.model_dump(mode="json", include=ENVELOPE) | json.loads(event.body())


def check(live: LiveServer, job_id: str, events: list[Any]) -> None:
    """What was seen is the log: nothing twice, nothing missing but previews that newer ones replaced."""
    seen = [facts(event) for event in events]
    seqs = [event["seq"] for event in seen]
    assert seqs == sorted(set(seqs))
    log = live.events(job_id)
    assert [event for event in seen if event["type"] != "preview"] == [
        event for event in log if event["type"] != "preview"
    ]
    canvas = Canvas(1)
    for event in events:
        canvas.feed(event)
    assert canvas.is_complete
    assert all(len(image.patches) == NUM_TOKENS for image in canvas.images)


def cut_often(chance: random.Random) -> int | None:
    """From within the handshake's answer to some events later; a few connections hold."""
    return None if chance.random() < 0.02 else chance.choice([chance.randint(1, 400), chance.randint(200, 6000)])


def paint_through_cuts(open_client: Open, live: LiveServer, wanted: int, seed: int) -> int:
    """Jobs one after another until `wanted` connections were cut. Returns how many jobs it took."""
    jobs = 0
    before = accepted(live)
    with CuttingProxy(live.url, cut_often, seed=seed) as proxy:
        client = open_client(proxy.url, patience=Patience(HANG_SECONDS, HANG_SECONDS, 0.001, 0.01))
        while proxy.num_cuts < wanted:
            job = client.submit("a red circle", **SHORT)
            events = list(job.events())
            made = job.wait()
            jobs += 1
            check(live, job.id, events)
            assert [picture.data for picture in made.images] == [live.png(job.id, index) for index in range(3)]
        client.close()
    assert accepted(live) - before == jobs, "however often a submit was sent, it is one job"
    return jobs


def accepted(live: LiveServer) -> float:
    text = live.client.get("/metrics").text
    found = re.search(r'^oar_requests_total\{outcome="accepted"\} (\S+)$', text, re.M)
    return float(found[1]) if found else 0.0


def test_a_stream_survives_twenty_cuts(open_client: Open, live: LiveServer) -> None:
    assert paint_through_cuts(open_client, live, 20, seed=1) >= 1


@pytest.mark.chaos
def test_a_stream_survives_five_hundred_cuts(open_client: Open, live: LiveServer) -> None:
    assert paint_through_cuts(open_client, live, 500, seed=2) > 5


@pytest.mark.running
@pytest.mark.chaos
def test_a_server_that_is_killed_and_started_again_goes_unnoticed(
    open_client: Open, tmp_path: Path, weights_dir: Path
) -> None:
    settings = {"OAR_SLOTS": "2", "OAR_LEASE_SECONDS": "1"}
    with LiveServer(tmp_path, weights_dir, **settings) as server:
        client = open_client(server.url, patience=Patience(seconds=HANG_SECONDS, longest_pause=0.3))
        job = client.submit("a red circle", **LONG)
        events: list[Any] = []
        reading = threading.Thread(target=lambda: events.extend(job.events()))
        reading.start()
        wait_for(lambda: len(events) > 10)
        api, port = server.children("api"), server.url.rpartition(":")[2]
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in api))
        assert server.process.stdout is not None
        server.process.stdout.close()
        server.client.close()
        with LiveServer(tmp_path, weights_dir, **settings, OAR_PORT=port) as again:
            assert again.url == server.url
            reading.join(HANG_SECONDS)
            assert not reading.is_alive()
            check(again, job.id, events)
            assert len(job.wait().images) == 12
            client.close()
        server.process = again.process
        server.process.stdout = open(os.devnull)  # noqa: SIM115  (it is stopped already)


@pytest.mark.running
def test_an_api_that_is_killed_under_a_stream_is_replaced(open_client: Open, slow: LiveServer) -> None:
    """`oar serve` starts another API at the same address; the client finds it."""
    client = open_client(slow.url, patience=Patience(seconds=HANG_SECONDS, longest_pause=0.3))
    with slow.held(10):
        job = client.submit("a red circle", **LONG)
        stream = iter(job.events())
        events = [next(stream) for _ in range(10)]
        (pid,) = slow.children("api")
        os.kill(pid, signal.SIGKILL)
    events += stream
    check(slow, job.id, events)


@pytest.mark.running
def test_patience_ends_with_a_server_that_stays_away(open_client: Open, slow: LiveServer) -> None:
    with CuttingProxy(slow.url, lambda _: None) as proxy, slow.held():
        client = open_client(proxy.url, patience=Patience(seconds=0.4, first_pause=0.02))
        job = client.submit("a red circle", **LONG)
        stream = iter(job.events())
        next(stream)
        proxy.is_refusing = True
        proxy.cut_all()
        with pytest.raises(ConnectionFailed):
            list(stream)
        proxy.is_refusing = False
        slow.client.delete(f"/v1/generations/{job.id}")


@pytest.mark.running
def test_a_silent_connection_is_opened_again(open_client: Open, slow: LiveServer) -> None:
    """It may be half dead without either side knowing."""
    with CuttingProxy(slow.url, lambda _: None) as proxy:
        client = open_client(proxy.url, silence=0.5)
        events: list[Any] = []
        with slow.held():
            job = client.submit("a red circle", **SHORT)
            reading = threading.Thread(target=lambda: events.extend(job.events()))
            reading.start()
            wait_for(lambda: proxy.num_connections > 3)  # it hears nothing for a while, twice
        reading.join(HANG_SECONDS)
        check(slow, job.id, events)
        client.close()


# with this test as the worker, so that every event is chosen


class Studio:
    """An API without workers, and one worker that does as the test says."""

    def __init__(self, loop: Loop, url: str, connection: RedisConnection, worker: WorkerQueue) -> None:
        self._loop = loop
        self.url = url
        self._connection = connection
        self._worker = worker

    def take(self) -> Claim:
        async def taken() -> Claim:
            item = await self._worker.take(HANG_SECONDS)
            assert item is not None
            claim = await self._worker.claim(item)
            assert claim is not None
            return claim

        return self._loop.run(taken())

    def emit(self, claim: Claim, first: int, *events: NewEvent) -> None:
        self._loop.run(scripts.run_many(self._connection, [self._worker.calls.emit(claim, first, list(events))]))

    def finish(self, claim: Claim) -> None:
        body = Completed(images=(ImageLink(index=0, url="/x"),), seconds=1).body()
        call = self._worker.calls.finish(claim, JobState.COMPLETED, body, [b"png"])
        self._loop.run(scripts.run_many(self._connection, [call]))


@pytest.fixture
def studio(request: pytest.FixtureRequest, loop: Loop, redis_server: EmbeddedRedis, tmp_path: Path) -> Iterator[Studio]:
    limits = getattr(request, "param", {})
    settings = Settings(redis_url=redis_server.url, data_dir=tmp_path, lease_seconds=60, registry_seconds=0, **limits)
    model = ModelInfo(
        name="tiny",
        grid=(2, 3),
        image_size=(8, 12),
        orders=("raster",),
        group_sizes=("cosine",),
        defaults=GenerationDefaults(steps=3),
    )

    async def connect() -> tuple[RedisConnection, WorkerQueue]:
        connection = RedisConnection(redis_server.url)
        await connection.once("FLUSHALL")
        registry = Registry(connection)
        await registry.publish_models([model], {}, 60)
        await registry.workers.beat(WorkerInfo(name="test", models=("tiny",), slots=2, step_seconds=0.5), 60)
        worker = WorkerQueue(connection, settings, "test", "tiny")
        await worker.open()
        return connection, worker

    connection, worker = loop.run(connect())
    with ApiThread(settings) as url:
        yield Studio(loop, url, connection, worker)
    loop.run(connection.close())


def news(kind: str, **fields: Any) -> NewEvent:
    return NewEvent(kind, json.dumps(fields))


def test_events_of_a_newer_server_are_told_as_they_are(open_client: Open, studio: Studio) -> None:
    job = open_client(studio.url).submit("a red circle")
    claim = studio.take()
    patch = {"rank": 0, "position": 0, "row": 0, "col": 0, "token": 1, "confidence": 0.5, "colour": "red"}
    studio.emit(
        claim,
        claim.seq + 1,
        news("weather", wind=3),
        news("patches", image=0, step=1, steps=3, patches=[patch], mood="calm"),
        news("patches", picture=0),
    )
    studio.finish(claim)
    *_, weather, patches, other, end = job.events()
    assert isinstance(weather, UnknownEvent)
    assert (weather.type, weather.model_extra) == ("weather", {"wind": 3})
    assert (patches.type, patches.step, patches.patches[0].token) == ("patches", 1, 1)
    assert isinstance(other, UnknownEvent), "of a known type, and changed beyond recognition"
    assert end.type == "completed"
    canvas = Canvas()
    for event in (weather, patches, other, end):
        canvas.feed(event)
    assert (canvas.rank, canvas.is_complete) == (1, True)


@pytest.mark.parametrize("studio", [{"socket_send_timeout": 1.0}], indirect=True)
def test_who_reads_too_slowly_is_closed_and_resumes(open_client: Open, studio: Studio) -> None:
    """The server closes with 1013 and says where; nothing that counts is lost."""
    with CuttingProxy(studio.url, lambda _: None, receive_buffer=1 << 12) as proxy:
        client = open_client(proxy.url)
        job = client.submit("a red circle")
        claim = studio.take()
        stream = iter(job.events())
        seen = [next(stream)]
        sent = 0
        while slow_closes(studio) < 1:  # how much the machine's socket buffers take is its own affair
            assert sent < 600, "240 MB are waiting and nobody was closed"
            # What is random cannot be compressed on the way.
            noise = random.Random(sent).randbytes(200_000).hex()
            large = [news("patches", image=0, number=sent + index, data=noise) for index in range(10)]
            studio.emit(claim, claim.seq + 1 + sent, *large)
            sent += len(large)
            time.sleep(0.3)
        before = proxy.num_connections
        studio.finish(claim)
        seen += stream
        assert proxy.num_connections > before
    seqs = [event.seq for event in seen]
    assert seqs == list(range(1, len(seqs) + 1))
    assert seen[-1].type == "completed"
    assert [event.model_extra["number"] for event in seen if event.type == "patches"] == list(range(sent))


def slow_closes(studio: Studio) -> float:
    with Client(studio.url, patience=QUICK) as client:
        text = client._connections._client.get("/metrics").text
    return float(re.search(r"^oar_ws_slow_client_closed_total (\S+)$", text, re.M)[1])  # pyright: ignore


@pytest.mark.parametrize("studio", [{"max_sockets": 1}], indirect=True)
def test_a_server_without_a_free_socket_is_asked_again(open_client: Open, studio: Studio) -> None:
    client = open_client(studio.url, patience=Patience(seconds=HANG_SECONDS, first_pause=0.05, longest_pause=0.2))
    job = client.submit("a red circle")
    claim = studio.take()
    holding = job.events()
    next(iter(holding))
    other: list[Any] = []
    waiting = threading.Thread(target=lambda: other.extend(job.events()))
    waiting.start()
    time.sleep(0.5)
    assert not other
    holding.close()
    studio.finish(claim)
    waiting.join(HANG_SECONDS)
    assert [event.type for event in other] == ["queued", "started", "completed"]


@pytest.mark.parametrize("studio", [{"socket_idle": 0.3}], indirect=True)
def test_a_server_that_closes_idle_streams_is_asked_again(open_client: Open, studio: Studio) -> None:
    job = open_client(studio.url).submit("a red circle")
    claim = studio.take()
    ending = threading.Timer(1.5, studio.finish, [claim])
    ending.start()
    assert [event.type for event in job.events()] == ["queued", "started", "completed"]
    ending.join()
