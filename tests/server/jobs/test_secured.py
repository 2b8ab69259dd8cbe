"""A Redis with a password, an ACL user with the rights that docs/operating.md names, and TLS options in the URL."""

import asyncio
import re
from pathlib import Path

import pytest

from oar_wire.errors import RedisUnavailable
from oar_wire.job import GenerationParams
from oar_wire.model import ModelInfo, WorkerInfo
from server.jobs import scripts
from server.jobs.connection import RedisConnection
from server.jobs.control import ControlStream
from server.jobs.dead import DeadLetters
from server.jobs.embedded import EmbeddedRedis
from server.jobs.events import EventLog
from server.jobs.gauge import ExporterLease, QueueGauge
from server.jobs.job import JobState
from server.jobs.log import NewEvent
from server.jobs.queue import JobQueue
from server.jobs.store import Registry
from server.jobs.sweeper import Sweeper
from server.jobs.worker_queue import WorkerQueue
from server.settings import Settings

pytestmark = pytest.mark.anyio

TEXT = (Path(__file__).parents[3] / "docs" / "operating.md").read_text()
PASSWORD = "a-long-word"
PARAMS = GenerationParams(
    model="tiny", prompt="x", seed=1, n=1, order="raster", steps=3, group_sizes="cosine", guidance=1.0,
    temperature=1.0, top_k=0, top_p=1.0, previews=False,
)  # fmt: skip


def as_user(redis_server: EmbeddedRedis, user: str, password: str) -> str:
    return redis_server.url.replace("unix://", f"unix://{user}:{password}@")


async def test_the_rights_that_the_docs_name_are_enough(
    redis_server: EmbeddedRedis, connection: RedisConnection, settings: Settings, model_info: ModelInfo
) -> None:
    """TIME belongs to no category of commands that a user would think of, and every script asks for it."""
    found = re.search(r"`(\+@read [^`]+)` on all keys", TEXT)
    assert found is not None
    await connection.once("ACL", "SETUSER", "oar", "on", f">{PASSWORD}", "~*", *found[1].split())
    limited = RedisConnection(as_user(redis_server, "oar", PASSWORD))
    try:
        registry = Registry(limited)
        await registry.publish_models([model_info], {}, 60)
        await registry.workers.beat(WorkerInfo(name="w", models=("tiny",), slots=4), ttl=30)
        queue, worker = JobQueue(limited, settings), WorkerQueue(limited, settings, "w", "tiny")
        await worker.open()
        submitted = await queue.submit(PARAMS)
        job = await queue.load(submitted.job_id)
        assert (await queue.look(job.id)).waiting_ahead == 0
        item = await worker.take(0.1)
        assert item is not None
        claim = await worker.claim(item)
        assert claim is not None
        await scripts.run_many(limited, [worker.calls.renew(claim)])
        events = [NewEvent("patches", "{}"), NewEvent("preview", "{}"), NewEvent("preview", "{}")]
        assert await scripts.run_many(limited, [worker.calls.emit(claim, 2, events)]) == [[5, 0]]
        assert await scripts.run_many(limited, [worker.calls.release(claim)]) == [1]
        item = await worker.take(0.1)
        assert item is not None
        claim = await worker.claim(item)
        assert claim is not None
        assert await EventLog(limited).read_checkpoint(claim.job_id, claim.base)
        assert (await QueueGauge(limited).read("tiny")).depth == 1
        assert await ExporterLease(limited, 30).hold()
        assert await scripts.run_many(limited, [worker.calls.finish(claim, JobState.COMPLETED, "{}", [b"png"])]) == [1]
        types = [event.type for event in await EventLog(limited).read(job.id)]
        assert types == ["queued", "started", "patches", "preview", "completed"]
        late = await queue.submit(PARAMS.model_copy(update={"deadline": 0.001, "priority": "low"}))
        canceled = await queue.submit(PARAMS.model_copy(update={"priority": "high"}))
        await queue.cancel(await queue.load(canceled.job_id))
        await asyncio.sleep(0.05)
        assert await Sweeper(limited, settings).sweep() == 1
        assert {job.id, late.job_id, canceled.job_id} <= set(await queue.ended())
        assert await worker.unfinished() == []
        assert await DeadLetters(limited).list() == []
        assert await DeadLetters(limited).count() == 0
        control = ControlStream(limited, "w")
        assert await control.read(0.01) == []
        await control.remove()
    finally:
        await limited.close()
        await connection.once("ACL", "DELUSER", "oar")


async def test_a_wrong_password_is_said_at_once(redis_server: EmbeddedRedis, settings: Settings) -> None:
    stranger = RedisConnection(as_user(redis_server, "nobody", "wrong"))
    try:
        with pytest.raises(RedisUnavailable):
            await JobQueue(stranger, settings).submit(PARAMS)
    finally:
        await stranger.close()


@pytest.mark.parametrize("url", re.findall(r"^rediss://\S+$", TEXT, re.M))
async def test_the_urls_of_the_docs_are_understood(url: str) -> None:
    connection = RedisConnection(url)
    for client in (connection._blocking, connection._command):
        options = client.connection_pool.connection_kwargs
        assert (options["host"], options["port"], options["password"]) == ("redis.example", 6380, "PASSWORD")
        assert options["ssl_ca_certs"] == "/etc/oar/ca.pem"
        assert client.connection_pool.connection_class.__name__ == "SSLConnection"
    await connection.close()
