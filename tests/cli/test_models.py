"""`oar models`: the list of the manifest, and `forget`."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from oar_cli import main
from oar_wire.model import ModelInfo, WorkerInfo
from server.jobs import keys
from server.jobs.connection import RedisConnection
from server.jobs.embedded import EmbeddedRedis
from server.jobs.job import JobState
from server.jobs.queue import JobQueue
from server.jobs.store import Registry
from server.settings import Settings
from tests.server.jobs.protocol import PARAMS, open_worker, take

pytestmark = pytest.mark.anyio


@pytest.fixture
def oar(redis_server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setenv("REDIS_URL", redis_server.url)

    async def call(*words: str, code: int = 0) -> Any:
        result = await asyncio.to_thread(lambda: CliRunner().invoke(main, ["models", *words]))
        assert result.exit_code == code, result.output
        return json.loads(result.output) if "--json" in words else result.output

    return call


async def test_a_model_is_forgotten_when_nobody_needs_it(
    oar: Callable[..., Any], connection: RedisConnection, settings: Settings, model_info: ModelInfo
) -> None:
    registry, queue = Registry(connection), JobQueue(connection, settings)
    assert "there is no model 'tiny'" in await oar("forget", "tiny", code=1)
    await registry.publish_models([model_info], {"tiny": "{}"}, 600)
    await registry.workers.beat(WorkerInfo(name="w", models=("tiny",), slots=4), 60)
    worker = await open_worker(connection, settings)
    assert "1 workers serve tiny; stop them first" in await oar("forget", "tiny", code=1)
    await registry.workers.leave("w")
    waiting = (await queue.submit(PARAMS)).job_id
    assert "1 jobs wait for tiny; `--cancel-jobs` cancels them" in await oar("forget", "tiny", code=1)
    assert await oar("forget", "tiny", "--cancel-jobs", "--json") == {"name": "tiny", "canceled": 1}
    assert (await queue.load(waiting)).state is JobState.CANCELED
    assert await registry.models() == []
    assert await registry.default_model() is None
    assert await connection.once("EXISTS", keys.text_tokenizer_key("tiny"), *keys.queue_keys("tiny")) == 0
    await registry.publish_models([model_info], {}, 600)
    await worker.open()
    running = (await queue.submit(PARAMS)).job_id
    await take(worker)
    assert "1 jobs of tiny were begun" in await oar("forget", "tiny", "--cancel-jobs", code=1)
    assert (await queue.load(running)).cancel_requested


async def test_alone_it_lists_as_before(oar: Callable[..., Any], weights_dir: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("OAR_WEIGHTS_DIR", str(weights_dir))
    assert await oar() == await oar("list") == "* tiny  Apache-2.0\n"
    assert await oar("--json") == [{"name": "tiny", "is_default": True, "licence": "Apache-2.0"}]
    assert "forget" in await oar("--help")
