"""The bundled Valkey: started, shared, stopped, and never left behind."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from redis import Redis

from server.jobs.embedded import MAX_SOCKET_PATH, EmbeddedRedis, EmbeddedRedisError
from tests.waiting import HANG_SECONDS, wait_for

ROOT = Path(__file__).parents[3]
HOLDER = """
import signal, sys
from pathlib import Path
from server.jobs.embedded import EmbeddedRedis
server = EmbeddedRedis(Path(sys.argv[1]))
server.start()
print("up", flush=True)
signal.pause()
"""


def client(server: EmbeddedRedis) -> Redis:
    return Redis.from_url(server.url)


def wait_until_gone(server: EmbeddedRedis) -> None:
    wait_for(lambda: not server.socket.exists())


def test_the_last_user_stops_it_and_the_data_stays(tmp_path: Path) -> None:
    first, second = EmbeddedRedis(tmp_path), EmbeddedRedis(tmp_path)
    first.start()
    second.start()
    with client(first) as redis:
        redis.set("key", "value")
        assert redis.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert redis.config_get("appendonly") == {"appendonly": "yes"}
        assert redis.config_get("port") == {"port": "0"}
    assert stat.S_IMODE(first.folder.stat().st_mode) == 0o700
    first.stop()
    with client(second) as redis:
        assert redis.get("key") == b"value"
    second.stop()
    assert not second.socket.exists()
    second.start()
    with client(second) as redis:
        assert redis.get("key") == b"value"
    second.stop()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_when_its_user_is_killed(tmp_path: Path, number: signal.Signals) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    server = EmbeddedRedis(tmp_path)
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "up\n"
            assert server.socket.exists()
            holder.send_signal(number)
            holder.wait(HANG_SECONDS)
        finally:
            holder.kill()
    wait_until_gone(server)


def test_it_is_started_again_when_it_is_killed(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    server.start()
    with client(server) as redis:
        redis.set("key", "value")
        pid = redis.info("server")["process_id"]
    os.kill(pid, signal.SIGKILL)
    wait_for(server._is_ours)
    with client(server) as redis:
        assert redis.get("key") == b"value"
    server.stop()


def test_a_long_folder_gets_a_short_socket(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 90)
    server = EmbeddedRedis(folder)
    assert len(os.fsencode(server.socket)) <= MAX_SOCKET_PATH
    server.start()
    with client(server) as redis:
        assert redis.ping()
    server.stop()


@pytest.mark.parametrize("fsync", ["everysec", "always"])
def test_when_it_writes_to_the_disk_is_a_setting(tmp_path: Path, fsync: str) -> None:
    server, other = EmbeddedRedis(tmp_path, fsync), EmbeddedRedis(tmp_path)
    server.start()
    other.start()
    with client(server) as redis:
        assert redis.config_get("appendfsync") == {"appendfsync": fsync}, "whoever starts it decides"
    other.stop()
    server.stop()


def test_a_damaged_append_only_file_is_said_with_its_repair(tmp_path: Path) -> None:
    """It was started again and again for ten seconds, and then was said not to answer."""
    server = EmbeddedRedis(tmp_path)
    server.start()
    with client(server) as redis:
        for number in range(100):
            redis.set(f"key-{number}", "value")
    server.stop()
    (path,) = (server.folder / "appendonlydir").glob("*.incr.aof")
    data = bytearray(path.read_bytes())
    middle = data.index(b"key-50")
    data[middle - 20 : middle] = b"\0" * 20
    path.write_bytes(data)
    with pytest.raises(EmbeddedRedisError, match=r"append-only file .* is damaged") as caught:
        server.start()
    sentence = str(caught.value)
    assert str(server.folder / "appendonlydir") in sentence
    command = sentence.partition("in bash: ")[2]
    assert "--fix" in command
    fixing = subprocess.run(["bash", "-c", command], input="y\n", text=True, capture_output=True, timeout=60)
    assert fixing.returncode == 0, fixing.stdout + fixing.stderr
    server.start()
    with client(server) as redis:
        assert redis.get("key-10") == b"value"
    server.stop()


@pytest.mark.parametrize("pattern", ["*.base.rdb", "*.manifest"])
def test_data_that_no_tool_repairs_is_said_too(tmp_path: Path, pattern: str) -> None:
    server = EmbeddedRedis(tmp_path)
    server.start()
    server.stop()
    (path,) = (server.folder / "appendonlydir").glob(pattern)
    path.write_bytes(b"\0" * 64)
    with pytest.raises(EmbeddedRedisError, match=r"is damaged \(.+\): put a backup in its place, or move it away"):
        server.start()
    wait_until_gone(server)
