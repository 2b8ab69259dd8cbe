"""What the API remembers of models and workers."""

import asyncio

import pytest

from server.jobs.connection import RedisConnection
from server.jobs.store import RecentRegistry, Registry
from server.schemas.model import ModelInfo, WorkerInfo

pytestmark = pytest.mark.anyio


async def test_what_is_known_is_asked_for_again_after_a_while(
    connection: RedisConnection, model_info: ModelInfo
) -> None:
    registry = Registry(connection)
    recent = RecentRegistry(registry, 60)
    assert (await recent.default_model(), await recent.model("tiny"), await recent.workers()) == (None, None, [])
    await registry.publish_models([model_info], {})
    await registry.beat(WorkerInfo(name="one", models=("tiny",), slots=2), 60)
    assert await recent.default_model() == "tiny", "what was not there is not remembered"
    assert await recent.model("tiny") == model_info
    assert [worker.name for worker in await recent.workers()] == ["one"]
    await registry.leave("one")
    assert [worker.name for worker in await recent.workers()] == ["one"]
    brief = RecentRegistry(registry, 0.05)
    await registry.beat(WorkerInfo(name="two", models=("tiny",), slots=2), 60)
    assert [worker.name for worker in await brief.workers()] == ["two"]
    await registry.leave("two")
    await asyncio.sleep(0.1)
    assert await brief.workers() == []
