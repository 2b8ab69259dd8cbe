"""`oar serve` as processes: what is killed comes back, what is stopped is gone, and no job is lost."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from server.jobs.embedded import find_binary
from tests.ports import free_port
from tests.server.live import ROOT, SLOW, LiveServer, wait_for_patches
from tests.server.processes import find_processes
from tests.server.test_generations import check_log
from tests.server.tiny import NUM_TOKENS
from tests.waiting import HANG_SECONDS, wait_for

LONG = {"n": 12, "steps": NUM_TOKENS, "guidance": 3.0, "seed": 11, "order": "random"}


def processes_of(folder: Path) -> list[str]:
    """Every process whose command line or environment names the folder."""
    found: list[str] = []
    for entry in Path("/proc").iterdir():
        try:
            command, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
        except OSError:
            continue
        if entry.name != str(os.getpid()) and os.fsencode(folder) in command + environment:
            found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found


@pytest.mark.running
def test_a_worker_killed_at_work_is_replaced_and_its_job_goes_on(
    live: LiveServer, tmp_path: Path, weights_dir: Path
) -> None:
    """The event log is the checkpoint: no position is drawn twice, and the pictures are those of an undisturbed run."""
    undisturbed = live.submit(**LONG, previews=False)
    live.events(undisturbed["id"])
    with LiveServer(tmp_path, weights_dir, is_gated=True, **SLOW) as server:
        with server.held(40):
            job = server.submit(**LONG, previews=False)
            waiting = server.submit(**LONG)
            for kill in range(2):
                # A step writes one patch; the second worker takes some to find that two pictures are finished.
                wait_for_patches(server, job["id"], 40 + 30 * kill)
                (pid,) = wait_for(lambda: server.children("worker"))
                os.kill(pid, signal.SIGKILL)
                wait_for(lambda pid=pid: server.children("worker") not in ([], [pid]))
        events = server.events(job["id"])
        check_log(events, n=12)
        restarts = [event for event in events if event["type"] == "restarted"]
        assert [event["attempt"] for event in restarts] == [2, 3]
        first, second = (sum(event["known"]) for event in restarts)
        assert (first, second >= 70) == (40, True)
        assert server.events(waiting["id"])[-1]["type"] == "completed"
        pngs = [server.png(job["id"], index) for index in range(12)]
    assert pngs == [live.png(undisturbed["id"], index) for index in range(12)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_after_a_signal(tmp_path: Path, weights_dir: Path, number: signal.Signals) -> None:
    with LiveServer(tmp_path, weights_dir) as server:
        server.submit()
        assert len(processes_of(tmp_path)) >= 5
        assert server.stop(number) == 0
        wait_for(lambda: not processes_of(tmp_path))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_benchmark_that_is_told_to_stop_takes_its_server_along(
    tmp_path: Path, weights_dir: Path, number: signal.Signals
) -> None:
    words = ["bench", "backlog", "--weights", str(weights_dir), "--device", "cpu", "--slots", "4", "--seconds", "600"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-m", "oar_cli", *words], env=environment) as bench:
        try:
            wait_for(lambda: any(" worker" in command for command in processes_of(tmp_path)))
            bench.send_signal(number)
            assert bench.wait(HANG_SECONDS) == 1
        finally:
            bench.kill()
    wait_for(lambda: not processes_of(tmp_path))


@pytest.mark.running
def test_nothing_is_left_after_kill_9_and_the_next_start_finishes_the_job(tmp_path: Path, weights_dir: Path) -> None:
    with LiveServer(tmp_path, weights_dir, is_gated=True, **SLOW) as server:
        server.gate.close(5)
        job = server.submit(**LONG)
        wait_for_patches(server, job["id"], 5)
        server.stop(signal.SIGKILL)
        wait_for(lambda: not processes_of(tmp_path))
    with LiveServer(tmp_path, weights_dir, **SLOW) as server:
        events = server.events(job["id"])
        check_log(events, n=12)
        assert "restarted" in {event["type"] for event in events}


@pytest.mark.running
def test_a_stop_hands_back_what_does_not_finish_in_time(tmp_path: Path, weights_dir: Path) -> None:
    with LiveServer(tmp_path, weights_dir, is_gated=True, **SLOW, OAR_DRAIN_SECONDS="0") as server:
        server.gate.close(5)
        job = server.submit(**LONG)
        wait_for_patches(server, job["id"], 5)
        server.process.send_signal(signal.SIGINT)
        wait_for(lambda: "handed back" in server.log.read_text())
        server.gate.open()
        assert server.process.wait(HANG_SECONDS) == 0
    with LiveServer(tmp_path, weights_dir, **SLOW) as server:
        events = server.events(job["id"])
        check_log(events, n=12)
        assert [event["attempt"] for event in events if event["type"] == "restarted"] == [1]


@pytest.mark.running
def test_the_api_and_redis_come_back_too(tmp_path: Path, weights_dir: Path) -> None:
    with LiveServer(tmp_path, weights_dir, is_gated=True, **SLOW) as server:
        with server.held(5):
            job = server.submit(**LONG)
            wait_for_patches(server, job["id"], 5)
            os.kill(server.children("api")[0], signal.SIGKILL)
            guards = find_processes("server.jobs.guard")
            (valkey,) = set(find_processes("valkey-server", str(tmp_path))) - set(guards)
            os.kill(valkey, signal.SIGKILL)
        wait_for(lambda: is_finished(server, job["url"]))
        check_log(server.events(job["id"]), n=12)


def is_finished(server: LiveServer, url: str) -> bool:
    try:
        answer = server.client.get(url)
    except httpx.TransportError:
        return False
    return answer.status_code == 200 and answer.json()["status"] == "completed"


def test_a_port_in_use_is_one_sentence(live: LiveServer, tmp_path: Path, weights_dir: Path) -> None:
    port = live.url.rpartition(":")[2]
    server = LiveServer(tmp_path, weights_dir, OAR_PORT=port)
    with pytest.raises(AssertionError, match=r"Error: cannot listen on 127.0.0.1:\d+: Address already in use"):
        server.__enter__()
    server.process.wait(HANG_SECONDS)
    server.process.stdout.close()
    assert server.process.returncode == 1
    assert not processes_of(tmp_path)


def test_weights_that_are_missing_are_one_sentence(tmp_path: Path) -> None:
    server = LiveServer(tmp_path, tmp_path / "nothing")
    with pytest.raises(AssertionError, match=r"worker cannot start: .*manifest.toml does not exist"):
        server.__enter__()
    server.process.wait(HANG_SECONDS)
    server.process.stdout.close()
    assert server.process.returncode == 78, "no retry helps"
    assert "Traceback" not in server.log.read_text()
    wait_for(lambda: not processes_of(tmp_path))


@pytest.fixture
def redis_over_tcp(tmp_path: Path) -> Iterator[str]:
    """The URL of a server that is not ours: TCP, and a password."""
    port = free_port()
    words = [str(find_binary()), "--port", str(port), "--bind", "127.0.0.1", "--requirepass", "secret", "--save", ""]
    with (tmp_path / "redis.log").open("wb") as log:
        process = subprocess.Popen(words, cwd=tmp_path, stdout=log)
    wait_for(lambda: "Ready to accept" in (tmp_path / "redis.log").read_text())
    yield f"redis://:secret@127.0.0.1:{port}/0"
    process.terminate()
    process.wait(HANG_SECONDS)


def test_a_redis_that_redis_url_names_is_used(redis_over_tcp: str, tmp_path: Path, weights_dir: Path) -> None:
    with LiveServer(tmp_path, weights_dir, REDIS_URL=redis_over_tcp) as server:
        assert server.post(wait=60, n=2).json()["status"] == "completed"
        assert not (tmp_path / "data" / "redis").exists()
    assert "secret" not in server.log.read_text()


@pytest.mark.slow
def test_an_idle_connection_is_the_clients_to_close(live: LiveServer) -> None:
    """Both sides gave it up after 5 seconds: a request that was on its way just then was reset."""
    with socket.create_connection((httpx.URL(live.url).host, httpx.URL(live.url).port or 80)) as connection:
        for _ in range(2):
            connection.sendall(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")
            time.sleep(6)


COLLECTED = """
import gc, os, signal, sys, threading, time
from oar_cli import main

def watch():
    while not gc.get_freeze_count():
        time.sleep(0.01)
    gc.collect()
    print(gc.get_freeze_count(), len(gc.get_objects()), sys.getswitchinterval(), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=watch, daemon=True).start()
main(sys.argv[1:])
"""


@pytest.mark.parametrize("verb", ["api", "worker"])
def test_a_full_collection_leaves_out_what_was_there_at_the_start(tmp_path: Path, weights_dir: Path, verb: str) -> None:
    """It would hold Python's lock for 50 ms of work and more: nobody would be answered, and no step made meanwhile."""
    environment = {
        **os.environ,
        "OAR_DATA_DIR": str(tmp_path),
        "OAR_PORT": "0",
        "OAR_WEIGHTS_DIR": str(weights_dir),
        "OAR_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-c", COLLECTED, verb]
    done = subprocess.run(
        command, env=environment, capture_output=True, check=False, encoding="utf-8", timeout=HANG_SECONDS
    )
    frozen, looked_at, switch_seconds = map(float, done.stdout.split())
    assert looked_at < frozen / 10
    # By Python's 5 ms, each kernel of a step would wait as long for the thread that writes events.
    assert verb == "api" or switch_seconds <= 1e-3
