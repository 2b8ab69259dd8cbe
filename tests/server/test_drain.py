"""How `oar serve` stops and restarts under load: it says so first, and nothing is lost."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.live import LiveServer, wait_for_patches
from tests.server.test_generations import check_log
from tests.server.tiny import NUM_TOKENS
from tests.waiting import HANG_SECONDS, wait_for

BUSY = {"n": 4, "steps": NUM_TOKENS, "guidance": 3.0}
NARROW = {"OAR_SLOTS": "2", "OAR_THREADS": "1"}


def is_ready(server: LiveServer) -> bool | None:
    """None when nobody answers."""
    try:
        return httpx.get(f"{server.url}/ready", timeout=HANG_SECONDS).status_code == 200
    except httpx.TransportError:
        return None


@pytest.mark.running
def test_a_stop_under_load_says_so_first_and_loses_nothing(tmp_path: Path, weights_dir: Path) -> None:
    with LiveServer(tmp_path, weights_dir, is_gated=True, **NARROW, OAR_DRAIN_SECONDS="600") as server:
        server.gate.close(5)
        jobs = [server.submit(**BUSY) for _ in range(20)]
        wait_for_patches(server, jobs[0]["id"], 5)
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: is_ready(server) is False)
        server.gate.open()
        seen: list[bool | None] = []
        while server.process.poll() is None:
            seen.append(is_ready(server))
        assert True not in seen, "it does not change its mind"
        assert server.stop(signal.SIGTERM) == 0
    with LiveServer(tmp_path, weights_dir) as server:
        for job in jobs:
            events = server.events(job["id"])
            check_log(events, n=4)
            assert [event["type"] for event in events].count("completed") == 1


@pytest.mark.parametrize("grace", ["0.2", "60"])
def test_an_api_that_stops_is_not_ready_for_a_grace(tmp_path: Path, weights_dir: Path, grace: str) -> None:
    """A grace that is long enough to be looked at is ended by a second signal."""
    with LiveServer(tmp_path, weights_dir, OAR_READY_GRACE=grace) as server:
        (pid,) = server.children("api")
        os.kill(pid, signal.SIGTERM)
        if grace == "60":
            wait_for(lambda: is_ready(server) is False)
            assert server.post().status_code == 202, "it still serves"
            os.kill(pid, signal.SIGTERM)
        wait_for(lambda: server.children("api") not in ([], [pid]))
        wait_for(lambda: is_ready(server))
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: has_ended_without_grace(server))


def has_ended_without_grace(server: LiveServer) -> bool:
    for pid in server.children("api"):
        os.kill(pid, signal.SIGTERM)
    return server.process.poll() is not None


@pytest.mark.running
def test_a_rolling_restart_replaces_all_and_nobody_is_refused(tmp_path: Path, weights_dir: Path) -> None:
    with LiveServer(tmp_path, weights_dir, **NARROW, OAR_WORKERS="2") as server:
        long = server.submit(n=8, steps=NUM_TOKENS, guidance=3.0)
        before = {*server.children("api"), *server.children("worker")}
        jobs: list[dict[str, Any]] = []
        stop = threading.Event()

        def submit() -> None:
            while not stop.is_set():
                jobs.append(submit_as_clients_should(server, f"rolling-{len(jobs)}"))
                time.sleep(0.1)

        clients = threading.Thread(target=submit)
        clients.start()
        try:
            server.process.send_signal(signal.SIGUSR2)
            wait_for(lambda: len(now_running(server)) == 3 and not before & now_running(server))
            wait_for(lambda: len(jobs) > 3)
        finally:
            stop.set()
            clients.join()
        check_log(server.events(long["id"]), n=8)
        for job in jobs:
            check_log(server.events(job["id"]))
        assert "could not be replaced" not in server.log.read_text()


def now_running(server: LiveServer) -> set[int]:
    return {*server.children("api"), *server.children("worker")}


def submit_as_clients_should(server: LiveServer, key: str) -> dict[str, Any]:
    """A connection may be closed just when it is opened; an Idempotency-Key makes it safe to say it again."""
    for _ in range(10):
        try:
            answer = httpx.post(
                f"{server.url}/v1/generations",
                json={"prompt": "a red circle"},
                headers={"Idempotency-Key": key},
                timeout=HANG_SECONDS,
            )
        except httpx.TransportError:
            continue
        assert answer.status_code == 202, answer.text
        return answer.json()
    raise AssertionError("refused ten times")
