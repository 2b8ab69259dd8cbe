"""Keys are made in one file, and what an older release stored is still understood."""

import inspect
import re
from importlib import resources

import pytest

from server.jobs import keys
from server.jobs.connection import RedisConnection
from server.jobs.events import EventLog
from server.jobs.job import JobState
from server.jobs.log import NewEvent
from server.jobs.queue import JobQueue
from server.settings import Settings
from tests.server.jobs.protocol import PARAMS, open_worker, run, take

pytestmark = pytest.mark.anyio

MAKERS = [made for made in vars(keys).values() if inspect.isfunction(made) and made.__module__ == keys.__name__]
OTHERS = {"output_fields", "values_field", "parse_values_field", "queue_keys", "job_keys", "lua_names"}
SCRIPTS = sorted(path for path in (resources.files("server.jobs") / "lua").iterdir() if path.name.endswith(".lua"))


async def test_the_rights_of_every_key_are_looked_at() -> None:
    names = [made(*["x"] * made.__code__.co_argcount) for made in MAKERS if made.__name__ not in OTHERS]
    assert {name.partition(":")[0] for name in names} == set(keys.PREFIXES)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
async def test_no_script_spells_a_key_or_counts_its_arguments(path: object) -> None:
    text = re.sub(r"--.*", "", getattr(path, "read_text")())  # noqa: B009
    assert not re.findall(rf"'(?:{'|'.join(keys.PREFIXES)}):", text)
    assert not re.findall(r"'(?:news|due|dead|workers)'", text)
    assert set(re.findall(r"ARGV\[([^]]+)\]", text)) <= {"1", "2", "i + 1", "i - 5"}, "beside the names, bytes alone"


async def test_a_script_makes_the_keys_that_python_makes(connection: RedisConnection) -> None:
    calls = ("job_key('a')", "outputs_key('a')", "values_key('a')", "storage_key('t')", "control_key('w')")
    made = f"return {{{', '.join(calls)}, queue_key('m', 'low')}}"
    reply = await connection.once("EVAL", keys.lua_names() + made, 0)
    assert [name.decode() for name in reply] == [
        *(keys.job_key("a"), keys.outputs_key("a"), keys.values_key("a")),
        *(keys.storage_key("t"), keys.control_key("w"), keys.queue_key("m", "low")),
    ]


async def test_a_job_that_an_older_release_queued_completes(connection: RedisConnection, settings: Settings) -> None:
    """Its record as that release's script wrote it, value by value."""
    job_id = "gen-old"
    entry = (await connection.once("XADD", "q:tiny:normal", "*", "job", job_id, "work", "12")).decode()
    created = entry.partition("-")[0]
    fields = {
        "model": "tiny",
        "priority": "normal",
        "params": PARAMS.model_dump_json(),
        "rows": "2",
        "retry_of": "",
        "id": job_id,
        "work": "12",
        "tenant": "-",
        "share": "share:tiny:-",
        "state": "queued",
        "entry": entry,
        "created": created,
        "deadline": "0",
        "seq": "1",
        "storage": "9000",
    }
    await connection.once("HSET", f"job:{job_id}", *(word for pair in fields.items() for word in pair))
    await connection.once("SADD", "share:tiny:-", job_id)
    await connection.once("HSET", "storage:-", "active:tiny", "9000", "total", "9000")
    await connection.once("XADD", f"ev:{job_id}", "1-0", "type", "queued", "at", created, "body", "{}")
    queue, worker = JobQueue(connection, settings), await open_worker(connection, settings)
    place = await queue.look(job_id)
    assert (place.job.state, place.waiting_ahead, place.own_work) == (JobState.QUEUED, 0, 12)
    claim = await take(worker)
    assert (claim.job_id, claim.epoch, claim.tenant) == (job_id, 1, "-")
    await run(connection, worker.calls.emit(claim, claim.seq, [NewEvent("patches", '{"image":0}')]))
    assert await run(connection, worker.calls.finish(claim, JobState.COMPLETED, "{}", [b"png"])) == 1
    types = [event.type for event in await EventLog(connection).read_all(job_id)]
    assert types == ["queued", "started", "patches", "completed"]
    assert (await queue.look(job_id)).job.state is JobState.COMPLETED
    assert await queue.depth("tiny") == 0
