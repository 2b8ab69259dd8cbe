"""`oar jobs`."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner

from oar_cli import main
from oar_wire.job import EditParams
from oar_wire.model import ModelInfo
from server.jobs import keys
from server.jobs.connection import RedisConnection
from server.jobs.embedded import EmbeddedRedis
from server.jobs.job import JobState
from server.jobs.queue import JobQueue
from server.jobs.store import OutputStore, Registry
from server.settings import Settings
from tests.server.jobs.protocol import PARAMS, bury, kinds, open_worker, params, run, take

pytestmark = pytest.mark.anyio

Cli = Callable[..., Any]


@pytest.fixture
def oar(redis_server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs `oar jobs WORDS` in a thread, as it has an event loop of its own; JSON comes back parsed."""
    monkeypatch.setenv("REDIS_URL", redis_server.url)

    async def call(*words: str, code: int = 0) -> Any:
        import anyio

        result = await anyio.to_thread.run_sync(lambda: CliRunner().invoke(main, ["jobs", *words]))
        assert result.exit_code == code, result.output
        return json.loads(result.output) if "--json" in words else result.output

    return call


async def test_dead_and_retry_on_the_command_line(connection: RedisConnection, settings: Settings, oar: Cli) -> None:
    job_id = await bury(connection, settings, seed=11, priority="high")
    assert f"{job_id}  " in await oar("dead")
    (letter,) = await oar("dead", "--json")
    assert (letter["job_id"], letter["reason"], letter["attempts"]) == (job_id, "attempts_exhausted", 3)
    new = await oar("retry", job_id, "--json")
    assert (new["retry_of"], new["state"], new["params"]) == (job_id, "queued", letter["params"])
    assert await oar("dead", "--json") == []
    assert (await oar("retry", job_id)).strip() == new["id"], "once is enough"
    claim = await take(await open_worker(connection, settings))
    assert (claim.job_id, claim.params.seed, claim.priority, claim.attempt) == (new["id"], 11, "high", 1)


async def test_a_dead_job_can_be_repeated_when_it_has_expired(
    connection: RedisConnection, settings: Settings, oar: Cli
) -> None:
    job_id = await bury(connection, settings.model_copy(update={"result_ttl": 0.01}))
    assert (await oar("retry", job_id, "--json"))["retry_of"] == job_id


async def test_a_dead_edit_is_repeated_with_its_picture(
    connection: RedisConnection, settings: Settings, oar: Cli
) -> None:
    """Without it, the new job failed with `source_missing`."""
    job_id = await bury(connection, settings, source=b"a png", edit=EditParams(mode="vary", strength=0.5))
    new = await oar("retry", job_id, "--json")
    assert (new["retry_of"], new["params"]["edit"]["strength"]) == (job_id, 0.5)
    assert (await oar("retry", job_id)).strip() == new["id"], "once is enough"
    await connection.once("DEL", keys.source_key(job_id))
    assert await OutputStore(connection).read_source(new["id"]) == b"a png", "a copy of its own"
    assert await connection.once("PTTL", keys.source_key(new["id"])) == -1


async def test_a_dead_edit_whose_picture_has_expired_cannot_be_repeated(
    connection: RedisConnection, settings: Settings, oar: Cli
) -> None:
    job_id = await bury(connection, settings, source=b"a png", edit=EditParams(mode="inpaint"))
    await connection.once("DEL", keys.job_key(job_id), keys.source_key(job_id))
    assert "the picture that job" in await oar("retry", job_id, code=1)
    assert len(await oar("dead", "--json")) == 1


async def test_a_job_of_a_replaced_model_is_repeated_once(
    connection: RedisConnection, settings: Settings, oar: Cli
) -> None:
    """Its parameters then name another hash than its dead letter, which the second call does not find any more."""
    job_id = await bury(connection, settings, model_hash="old")
    await connection.once("HSET", keys.job_key(job_id), keys.Field.MODEL_HASH, "new")
    new = (await oar("retry", job_id)).strip()
    assert (await oar("retry", job_id)).strip() == new


async def test_list_show_and_cancel_on_the_command_line(
    connection: RedisConnection, settings: Settings, oar: Cli, model_info: ModelInfo
) -> None:
    await Registry(connection).publish_models([model_info], {}, 60)
    queue = JobQueue(connection, settings)
    low, high = [(await queue.submit(params(priority=priority))).job_id for priority in ("low", "high")]
    assert [job["id"] for job in await oar("list", "--json")] == [high, low]
    assert [line.split()[:3] for line in (await oar("list", "--model", "tiny", "--limit", "1")).splitlines()] == [
        [high, "queued", "high"]
    ]
    shown = await oar("show", low, "--json")
    assert (shown["state"], shown["priority"], shown["result"]) == ("queued", "low", None)
    assert f"id                {low}" in await oar("show", low)
    assert (await oar("cancel", low)).strip() == "canceled"
    assert await kinds(connection, low) == ["queued", "canceled"]
    await take(await open_worker(connection, settings))
    assert (await oar("cancel", high)).strip() == "running, cancel requested"
    assert (await oar("cancel", high, "--json"))["cancel_requested"] is True
    assert [job["id"] for job in await oar("list", "--json")] == [high]
    assert [job["id"] for job in await oar("list", "--all", "--json")] == [high, low]


async def test_what_cannot_be_done_is_one_sentence(connection: RedisConnection, settings: Settings, oar: Cli) -> None:
    assert "there is no job 'gen-x'" in await oar("show", "gen-x", code=1)
    assert "there is no job 'gen-x'" in await oar("retry", "gen-x", code=1)
    assert "there is no job 'gen-x'" in await oar("cancel", "gen-x", code=1)
    job_id = (await JobQueue(connection, settings).submit(PARAMS)).job_id
    assert "is queued; only dead, failed and canceled jobs" in await oar("retry", job_id, code=1)
    worker = await open_worker(connection, settings)
    await run(connection, worker.calls.finish(await take(worker), JobState.COMPLETED, "{}"))
    assert "is completed; only" in await oar("retry", job_id, code=1)
