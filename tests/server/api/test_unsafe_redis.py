"""Redis gets a setting by which it may lose jobs: the log, `/ready` and a metric say so until it is mended."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from oar_wire.model import ModelInfo, WorkerInfo
from server.jobs import safety
from server.jobs.connection import RedisConnection
from server.jobs.embedded import EmbeddedRedis
from server.jobs.safety import SafetyWatch
from server.jobs.store import Registry
from server.settings import Settings
from server.tasks import stop_tasks
from tests.server.api_thread import ApiThread
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

EVICTS = "Redis may evict jobs: its maxmemory-policy is allkeys-lru, set noeviction"
FORGETS = "Redis keeps no append-only file: jobs are lost when it ends, set appendonly yes"
SETTINGS = {
    "eviction": ("maxmemory-policy", "allkeys-lru", "noeviction", EVICTS),
    "no_append_only_file": ("appendonly", "no", "yes", FORGETS),
}


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """It is spoiled here, so nobody else may use it."""
    server = EmbeddedRedis(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def redis(own_redis: EmbeddedRedis, model_info: ModelInfo) -> AsyncIterator[RedisConnection]:
    """A worker lives."""
    connection = RedisConnection(own_redis.url)
    registry = Registry(connection)
    await registry.publish_models([model_info], {}, 600)
    await registry.workers.beat(WorkerInfo(name="test", models=("tiny",), slots=2), 600)
    yield connection
    await connection.close()


@pytest.mark.parametrize("danger", SETTINGS)
@pytest.mark.parametrize("is_there_at_the_start", [False, True])
async def test_a_setting_is_noticed_when_it_comes_and_when_it_goes(
    own_redis: EmbeddedRedis,
    redis: RedisConnection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    danger: str,
    is_there_at_the_start: bool,
) -> None:
    monkeypatch.setattr(safety, "LOOK_SECONDS", 0.05)
    name, bad, good, sentence = SETTINGS[danger]
    if is_there_at_the_start:
        await redis.once("CONFIG", "SET", name, bad)
    settings = Settings(redis_url=own_redis.url, data_dir=tmp_path / "api", registry_seconds=0)
    with caplog.at_level(logging.INFO, "server.jobs.safety"), ApiThread(settings) as url:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:

            async def tells(status: str, warnings: list[str]) -> bool:
                answer = await client.get("/ready")
                assert answer.status_code == 200, "requests are served all the same"
                return answer.json() == {"status": status, "model": "tiny", "warnings": warnings}

            async def gauge() -> str:
                lines = (await client.get("/metrics")).text.splitlines()
                return next(line for line in lines if line.startswith(f'oar_redis_unsafe{{danger="{danger}"}}'))

            if not is_there_at_the_start:
                assert await tells("ready", [])
                assert (await gauge()).endswith(" 0.0")
                await redis.once("CONFIG", "SET", name, bad)
            await wait_until(lambda: tells("degraded", [sentence]))
            assert (await gauge()).endswith(" 1.0")
            await redis.once("CONFIG", "SET", name, good)
            await wait_until(lambda: tells("ready", []))
            assert (await gauge()).endswith(" 0.0")
    assert caplog.messages.count(sentence) == 1, "however often it is looked at"
    assert caplog.messages[-1] == f"Redis is safe again: no {danger.replace('_', ' ')}"


async def test_another_policy_is_another_warning(redis: RedisConnection, caplog: pytest.LogCaptureFixture) -> None:
    watch = SafetyWatch(redis, lambda _: None)
    for policy in ("allkeys-lru", "allkeys-lru", "volatile-ttl"):
        await redis.once("CONFIG", "SET", "maxmemory-policy", policy)
        await watch.look()
    assert [message.partition(" is ")[2].partition(",")[0] for message in caplog.messages] == [
        "allkeys-lru",
        "volatile-ttl",
    ]


async def test_a_redis_that_is_away_or_may_not_be_asked_keeps_what_was_known(
    own_redis: EmbeddedRedis, redis: RedisConnection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(safety, "LOOK_SECONDS", 0.01)
    await redis.once("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    await redis.once("ACL", "SETUSER", "few", "on", ">p", "~*", "+@all", "-info")
    watch = SafetyWatch(redis, lambda _: None)
    await watch.look()
    known = watch.dangers
    assert known
    limited = RedisConnection(own_redis.url.replace("unix://", "unix://few:p@"))
    watch._connection = limited
    with caplog.at_level(logging.DEBUG, "server.jobs.safety"):
        looking = asyncio.create_task(watch.run())

        async def is_refused() -> bool:
            return "the settings of Redis cannot be looked at" in caplog.text

        await wait_until(is_refused)
        assert not looking.done()
        await stop_tasks([looking])
    assert watch.dangers == known
    await limited.close()


def test_it_is_noticed_within_a_minute() -> None:
    assert safety.LOOK_SECONDS <= 30
