"""A disk that fills up, and Redis that is killed then: what was accepted, as `OAR_FSYNC` promises it."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import httpx
import pytest
from redis import Redis
from redis.exceptions import RedisError

from oar_wire.model import ModelInfo, WorkerInfo
from server.jobs.connection import RedisConnection
from server.jobs.embedded import EmbeddedRedis
from server.jobs.store import Registry
from server.settings import Settings
from tests.server.api_thread import ApiThread
from tests.waiting import HANG_SECONDS, wait_for

pytestmark = pytest.mark.anyio

DISK_MIB = 16
ROOM = 64 << 10  # bytes that are left for jobs: some dozens
BLOCK = b"\0" * 4096
REFUSALS = {"everysec": {"writes_refused"}, "always": {"writes_refused", "redis_unavailable"}}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, check=False, text=True, encoding="utf-8")
    except FileNotFoundError:
        pytest.skip("no `mount`, which would make a small disk")
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    yield folder
    # The guard of Valkey lets go of its log as the last thing that it does.
    wait_for(lambda: subprocess.run(["umount", str(folder)], check=False, capture_output=True).returncode == 0)


def fill(disk: Path) -> Path:
    """All but some room, by one file that can be taken away again."""
    ballast = disk / "ballast"
    facts = os.statvfs(disk)
    blocks = (facts.f_bavail * facts.f_frsize - ROOM) // len(BLOCK)
    with ballast.open("wb") as file:
        for _ in range(blocks):
            file.write(BLOCK)
    return ballast


async def publish(url: str, model: ModelInfo) -> None:
    """A worker that takes nothing."""
    connection = RedisConnection(url)
    registry = Registry(connection)
    await registry.publish_models([model], {}, 3600)
    await registry.workers.beat(WorkerInfo(name="test", models=(model.name,), slots=2, step_seconds=0.5), 3600)
    await connection.close()


def process_id(redis: EmbeddedRedis) -> int | None:
    """None while it does not answer."""
    with Redis.from_url(redis.url) as client, contextlib.suppress(RedisError, OSError):
        return client.info("server")["process_id"]
    return None


def submit_until_refused(client: httpx.Client) -> tuple[list[str], httpx.Response]:
    """Ids that were accepted, oldest first, and the answer that was none."""
    accepted: list[str] = []
    while True:
        answer = client.post("/v1/generations", json={"prompt": "x" * 900})
        if answer.status_code != 202:
            return accepted, answer
        accepted.append(answer.json()["id"])


def is_there(client: httpx.Client, job_id: str) -> bool:
    """Waits while nobody can say."""

    def ask() -> int | None:
        status = client.get(f"/v1/generations/{job_id}").status_code
        return status if status in {200, 404} else None

    return wait_for(ask) == 200


@pytest.mark.parametrize("fsync", ["everysec", "always"])
async def test_what_was_accepted_outlives_a_full_disk_and_a_kill(
    disk: Path, model_info: ModelInfo, fsync: Literal["everysec", "always"]
) -> None:
    """With `always` all of it. With `everysec` all but the newest: what was answered when the disk became full."""
    settings = Settings(data_dir=disk, fsync=fsync, queue_depth=10_000, command_timeout=2)
    redis = EmbeddedRedis(disk)
    with ApiThread(settings) as url, httpx.Client(base_url=url, timeout=HANG_SECONDS, trust_env=False) as client:
        await publish(redis.url, model_info)
        accepted = [client.post("/v1/generations", json={"prompt": "x"}).raise_for_status().json()["id"]]
        ballast = fill(disk)
        more, refused = submit_until_refused(client)
        accepted += more
        assert len(more) > 5, "the disk had room for some"
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] in REFUSALS[fsync]
        assert int(refused.headers["Retry-After"]) > 0
        if fsync == "everysec":
            assert is_there(client, accepted[0]), "readers are served"
        killed = process_id(redis)
        if killed is not None:  # with `always` it ends by itself
            with contextlib.suppress(ProcessLookupError):
                os.kill(killed, signal.SIGKILL)
        ballast.unlink()
        wait_for(lambda: process_id(redis) not in {None, killed})
        lost = [job_id for job_id in accepted if not is_there(client, job_id)]
        assert lost == (accepted[len(accepted) - len(lost) :] if fsync == "everysec" else [])
        assert client.post("/v1/generations", json={"prompt": "x"}).status_code == 202, "it goes on by itself"
