"""Server-sent events: the websocket's log, for clients that have only HTTP."""

import json
import os
import random
import signal
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.live import SLOW, LiveServer, wait_for_patches
from tests.server.test_bad_input import check
from tests.server.test_stream import lasting
from tests.server.tiny import NUM_TOKENS
from tests.waiting import HANG_SECONDS, wait_for


def frames(text: str) -> list[dict[str, Any]]:
    """Whole frames as browsers read them; comments are left out."""
    events = []
    for block in text.split("\n\n")[:-1]:
        lines = [line for line in block.split("\n") if not line.startswith(":")]
        fields = dict(line.split(": ", 1) for line in lines)
        if fields:
            event = json.loads(fields["data"])
            assert (fields["id"], fields["event"]) == (str(event["seq"]), event["type"])
            events.append(event)
    return events


def read(live: LiveServer, url: str, after: int = 0, **headers: str) -> list[dict[str, Any]]:
    answer = live.client.get(f"{url}/events?after={after}", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    return frames(answer.text)


def test_it_tells_what_the_websocket_tells(live: LiveServer) -> None:
    job = live.submit(n=3, steps=NUM_TOKENS)
    assert job["events_url"] == f"{job['url']}/events"
    followed = read(live, job["url"])
    assert live.events(job["id"]) == read(live, job["url"])
    assert lasting(followed) == lasting(live.events(job["id"]))
    assert followed[-1]["type"] == "completed"


def test_it_goes_on_after_a_number(live: LiveServer) -> None:
    job = live.post(wait=60).json()
    everything = live.events(job["id"])
    for after in range(job["seq"]):
        rest = [event for event in everything if event["seq"] > after]
        assert read(live, job["url"], after) == rest
        # A browser comes back to the same address and says by header how far it had come.
        assert read(live, job["url"], 0, **{"Last-Event-ID": str(after)}) == rest


def test_a_browser_that_knows_the_end_is_told_not_to_come_again(live: LiveServer) -> None:
    job = live.post(wait=60).json()
    for after in (job["seq"], job["seq"] + 5):
        answer = live.client.get(f"{job['url']}/events", headers={"Last-Event-ID": str(after)})
        assert (answer.status_code, answer.content) == (204, b"")


def test_a_reader_that_breaks_off_at_random_gets_the_same_log(live: LiveServer) -> None:
    job = live.submit(n=4, steps=NUM_TOKENS)
    chance, pieced = random.Random(5), []
    while not pieced or pieced[-1]["type"] != "completed":
        after = pieced[-1]["seq"] if pieced else 0
        with live.client.stream("GET", f"{job['url']}/events?after={after}") as answer:
            text, wanted = "", chance.randrange(1, 3000)
            for piece in answer.iter_text(256):
                text += piece
                if len(text) > wanted:
                    break
        pieced += frames(text[: text.rfind("\n\n") + 2]) if "\n\n" in text else []
    assert lasting(pieced) == lasting(live.events(job["id"]))


@pytest.mark.parametrize(
    ("path", "headers", "status", "code", "field"),
    [
        ("gen-unknown/events", {}, 404, "job_not_found", None),
        ("gen-unknown/events?after=x", {}, 422, "invalid_after", "after"),
        ("gen-unknown/events?after=-1", {}, 422, "invalid_after", "after"),
        ("gen-unknown/events", {"Last-Event-ID": "1.5"}, 422, "invalid_after", "Last-Event-ID"),
    ],
)
def test_errors_come_before_the_stream(
    live: LiveServer, path: str, headers: dict[str, str], status: int, code: str, field: str | None
) -> None:
    check(live.client.get(f"/v1/generations/{path}", headers=headers), status, code, field)


def test_silence_is_filled_with_comments_and_ends(tmp_path: Path, weights_dir: Path) -> None:
    """No worker takes the job: proxies see life, and after a long time the stream ends, to be opened again."""
    settings = {"OAR_STREAM_HEARTBEAT": "0.05", "OAR_SOCKET_IDLE": "1"}
    with LiveServer(tmp_path, weights_dir, **settings) as server:
        (worker,) = server.children("worker")
        os.kill(worker, signal.SIGSTOP)
        job = server.submit()

        def is_filled() -> bool:
            text = server.client.get(f"{job['url']}/events").text
            assert [event["type"] for event in frames(text)] == ["queued"]
            return text.count(": no news\n\n") >= 3

        wait_for(is_filled)
        os.kill(worker, signal.SIGCONT)
        wait_for(lambda: server.client.get(job["url"]).json()["status"] == "completed")
        assert read(server, job["url"])[-1]["type"] == "completed"


@pytest.mark.running
def test_event_streams_are_limited(tmp_path: Path, weights_dir: Path) -> None:
    with LiveServer(tmp_path, weights_dir, is_gated=True, OAR_MAX_SOCKETS="2") as server:
        with server.held():
            url = f"{server.submit()['url']}/events"
            with server.client.stream("GET", url), server.client.stream("GET", url):
                wait_for(lambda: "oar_sse_connections 2.0" in server.client.get("/metrics").text)
                check(server.client.get(url), 503, "too_many_sockets")
            wait_for(lambda: "oar_sse_connections 0.0" in server.client.get("/metrics").text)
        assert frames(server.client.get(url).text)[-1]["type"] == "completed"


@pytest.mark.running
def test_reading_a_stream_and_leaving_it_cancels_nothing(live: LiveServer) -> None:
    with live.held(3):
        job = live.submit(n=16, steps=NUM_TOKENS, guidance=3.0)
        with live.client.stream("GET", f"{job['url']}/events") as answer:
            next(answer.iter_bytes())
        wait_for(lambda: "oar_sse_connections 0.0" in live.client.get("/metrics").text)
    assert live.events(job["id"])[-1]["type"] == "completed"


@pytest.mark.running
def test_open_streams_do_not_hold_a_stop_up(tmp_path: Path, weights_dir: Path) -> None:
    with LiveServer(tmp_path, weights_dir, is_gated=True, **SLOW, OAR_DRAIN_SECONDS="0") as server:
        server.gate.close(3)
        job = server.submit(n=16, steps=NUM_TOKENS, guidance=3.0)
        begun = threading.Event()

        def follow() -> None:
            try:
                with httpx.stream("GET", f"{server.url}{job['events_url']}", timeout=HANG_SECONDS) as answer:
                    for _ in answer.iter_bytes():
                        begun.set()
            except httpx.HTTPError:
                return

        reader = threading.Thread(target=follow)
        reader.start()
        assert begun.wait(HANG_SECONDS)
        wait_for_patches(server, job["id"], 3)
        server.process.send_signal(signal.SIGINT)
        wait_for(lambda: "handed back" in server.log.read_text())
        server.gate.open()
        server.process.wait(HANG_SECONDS)
        assert server.stop(signal.SIGINT) == 0, "and nothing had to be killed"
        reader.join(HANG_SECONDS)
        assert not reader.is_alive()
