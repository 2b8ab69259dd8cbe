"""The websocket: replay, live, both at once, and how it ends."""

import contextlib
import random
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.server.live import LiveServer
from tests.server.tiny import NUM_TOKENS
from tests.waiting import HANG_SECONDS


def test_a_finished_job_replays_its_log_and_closes(live: LiveServer) -> None:
    job = live.post(wait=60).json()
    with live.stream(job["id"]) as stream:
        events = list(stream)
        assert stream.close_code == 1000
    assert events[-1]["type"] == "completed"
    assert events[-1]["seq"] == job["seq"]


def test_after_skips_what_the_client_has(live: LiveServer) -> None:
    job = live.post(wait=60).json()
    everything = live.events(job["id"])
    for after in range(job["seq"] + 1):
        assert live.events(job["id"], after) == [event for event in everything if event["seq"] > after]
    assert live.events(job["id"], 10**9) == []


def lasting(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All but previews, of which a reader that is late sees fewer."""
    return [event for event in events if event["type"] != "preview"]


def test_a_reader_that_breaks_off_at_random_gets_the_same_log(live: LiveServer) -> None:
    job = live.submit(n=4, steps=NUM_TOKENS)
    chance = random.Random(5)
    pieced = []
    while not pieced or pieced[-1]["type"] != "completed":
        with live.stream(job["id"], pieced[-1]["seq"] if pieced else 0) as stream:
            for event in stream:
                pieced.append(event)
                if chance.random() < 0.1:
                    break
    assert lasting(pieced) == lasting(live.events(job["id"]))


@pytest.mark.running
def test_many_readers_of_a_running_job_see_the_same(live: LiveServer) -> None:
    job = live.submit(n=4, steps=NUM_TOKENS)
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(live.stream(job["id"])) for _ in range(5)]
        logs = [list(stream) for stream in streams]
    assert all(lasting(log) == lasting(logs[0]) for log in logs)
    assert logs[0][-1]["type"] == "completed"


@pytest.mark.parametrize(
    ("job_id", "after", "code", "close_code"),
    [("gen-unknown", "0", "job_not_found", 4404), ("gen-unknown", "-1", "invalid_after", 4400),
     ("gen-unknown", "x", "invalid_after", 4400), ("%00%ff", "0", "job_not_found", 4404)],
)  # fmt: skip
def test_an_error_is_a_frame_and_a_close_code(
    live: LiveServer, job_id: str, after: str, code: str, close_code: int
) -> None:
    with live.stream(job_id, after) as stream:
        (frame,) = list(stream)
        assert frame["error"]["code"] == code
        assert stream.close_code == close_code


@pytest.mark.running
def test_what_a_client_says_is_ignored(live: LiveServer) -> None:
    with live.held():
        job = live.submit()
        with connect(live.socket_url(job["id"]), open_timeout=HANG_SECONDS) as socket:
            for garbage in ("{", "\x00", b"\xff\xfe", ""):
                socket.send(garbage)
            live.gate.open()
            kinds = list(socket)
    assert '"completed"' in kinds[-1]
