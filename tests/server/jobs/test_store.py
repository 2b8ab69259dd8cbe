"""What the API remembers of models and workers."""

import asyncio

import pytest

from oar_wire.errors import RedisUnavailable
from oar_wire.model import ModelInfo, WorkerInfo
from server.jobs import keys
from server.jobs.connection import RedisConnection
from server.jobs.embedded import EmbeddedRedis
from server.jobs.store import RecentRegistry, Registry
from server.jobs.worker_registry import WorkerRegistry
from tests.server.jobs.protocol import ManualClock

pytestmark = pytest.mark.anyio


async def test_what_is_known_is_asked_for_again_after_a_while(
    connection: RedisConnection, model_info: ModelInfo
) -> None:
    registry = Registry(connection)
    recent = RecentRegistry(registry, 60)
    assert (await recent.default_model(), await recent.model("tiny"), await recent.workers()) == (None, None, [])
    await registry.publish_models([model_info], {}, 60)
    await registry.workers.beat(WorkerInfo(name="one", models=("tiny",), slots=2), 60)
    assert await recent.default_model() == "tiny", "what was not there is not remembered"
    assert await recent.model("tiny") == model_info
    assert [worker.name for worker in await recent.workers()] == ["one"]
    await registry.workers.leave("one")
    assert [worker.name for worker in await recent.workers()] == ["one"]
    brief = RecentRegistry(registry, 0.05)
    await registry.workers.beat(WorkerInfo(name="two", models=("tiny",), slots=2), 60)
    assert [worker.name for worker in await brief.workers()] == ["two"]
    await registry.workers.leave("two")
    await asyncio.sleep(0.1)
    assert await brief.workers() == []


class CountingWorkers(WorkerRegistry):
    """Tells how often Redis was asked; an answer takes a moment."""

    num_asked = 0

    async def alive(self) -> list[WorkerInfo]:
        self.num_asked += 1
        found = await super().alive()
        await asyncio.sleep(0.05)
        return found


def counting(connection: RedisConnection) -> tuple[Registry, CountingWorkers]:
    registry, workers = Registry(connection), CountingWorkers(connection)
    registry.workers = workers
    return registry, workers


async def test_many_who_ask_at_once_are_one_question(connection: RedisConnection) -> None:
    registry, workers = counting(connection)
    await registry.workers.beat(WorkerInfo(name="one", models=("tiny",), slots=2), 60)
    for seconds, most in ((60, 1), (0, 2)):
        workers.num_asked = 0
        recent = RecentRegistry(registry, seconds)
        answers = await asyncio.gather(*(recent.workers() for _ in range(50)))
        assert {alive[0].name for alive in answers} == {"one"}
        assert 1 <= workers.num_asked <= most


async def test_under_a_steady_load_nobody_waits(connection: RedisConnection) -> None:
    """Once a second one of many requests paid for the questions of all; on a busy machine that was the slowest."""
    registry, workers = counting(connection)
    await registry.workers.beat(WorkerInfo(name="one", models=("tiny",), slots=2), 60)
    recent = RecentRegistry(registry, 20)
    await recent.workers()
    recent._known["workers"].asked_at -= 11  # older than half of it
    await registry.workers.beat(WorkerInfo(name="two", models=("tiny",), slots=2), 60)
    answering = asyncio.create_task(recent.workers())
    await asyncio.sleep(0)
    assert answering.done(), "what is known is said before Redis has answered"
    assert [worker.name for worker in await answering] == ["one"]
    assert [worker.name for worker in await recent.workers()] == ["one"]
    await asyncio.gather(*recent._asking.values())
    assert [worker.name for worker in await recent.workers()] == ["one", "two"]
    assert workers.num_asked == 2


async def test_a_question_that_fails_in_the_background_is_heard_of_when_it_matters(
    redis_server: EmbeddedRedis, connection: RedisConnection
) -> None:
    lost = RedisConnection("unix:///nowhere/redis.sock", command_timeout=0.1)
    registry = Registry(connection)
    await registry.workers.beat(WorkerInfo(name="one", models=("tiny",), slots=2), 60)
    recent = RecentRegistry(registry, 20)
    await recent.workers()
    registry.workers._connection = lost
    recent._known["workers"].asked_at -= 11
    assert [worker.name for worker in await recent.workers()] == ["one"]
    await asyncio.wait(recent._asking.values())
    recent._known["workers"].asked_at -= 20
    with pytest.raises(RedisUnavailable):
        await recent.workers()
    await lost.close()


async def test_a_dead_worker_is_not_alive_though_redis_clock_was_set_back(connection: RedisConnection) -> None:
    """Its heartbeat then lives half an hour longer."""
    clock = ManualClock()
    registry, other = Registry(connection, clock), Registry(connection)
    for beats in range(3):
        info = WorkerInfo(name="one", models=("tiny",), slots=2, beats=beats, lease_seconds=15)
        await registry.workers.beat(info, 1800)
        assert [worker.name for worker in await registry.workers.alive()] == ["one"]
        clock.advance(14)
    assert [worker.name for worker in await registry.workers.alive()] == ["one"]
    clock.advance(14)
    assert await registry.workers.alive() == []
    assert [worker.name for worker in await other.workers.alive()] == ["one"], "which has not watched it for so long"
    await registry.workers.beat(info.model_copy(update={"beats": 9}), 1800)
    assert [worker.name for worker in await registry.workers.alive()] == ["one"], "it was frozen, and is back"


async def test_workers_that_are_gone_are_not_remembered(connection: RedisConnection) -> None:
    """Each start of a worker is another name: a registry watched the heartbeats of all that it had ever seen."""
    registry = Registry(connection)
    for number in range(20):
        info = WorkerInfo(name=f"worker-{number}", models=("tiny",), slots=2, beats=1, lease_seconds=15)
        await registry.workers.beat(info, 60)
        assert [worker.name for worker in await registry.workers.alive()] == [info.name]
        await registry.workers.leave(info.name)
    assert await registry.workers.alive() == []
    assert registry.workers._beats == {}


async def test_models_expire_with_their_last_worker(connection: RedisConnection, model_info: ModelInfo) -> None:
    registry = Registry(connection)
    await registry.publish_models([model_info], {"tiny": "{}"}, 60)
    names = (keys.model_key("tiny"), keys.text_tokenizer_key("tiny"), keys.DEFAULT_MODEL)
    assert await registry.keep_models(["tiny"], 600)
    assert all([60_000 < await connection.once("PTTL", name) <= 600_000 for name in names])
    second = model_info.model_copy(update={"name": "second"})
    await registry.publish_models([second], {"second": "{}"}, 60, becomes_default=False)
    assert await registry.default_model() == "tiny"
    for name in names:
        await connection.once("PEXPIRE", name, 1)
    while await connection.once("EXISTS", *names):
        await asyncio.sleep(0.005)
    assert [info.name for info in await registry.models()] == ["second"]
    assert await registry.served_models() == ["second"]
    assert not await registry.keep_models(["second"], 60), "there is no default model any more"
    await registry.publish_models([second], {}, 60, becomes_default=False)
    assert await registry.default_model() == "second"
