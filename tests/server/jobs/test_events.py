import pytest

from oar_wire.events import EVENTS, Completed, Failed, Patches, PatchInfo
from oar_wire.job import Failure
from server.jobs import keys
from server.jobs.connection import RedisConnection
from server.jobs.events import EventLog, StoredEvent

pytestmark = pytest.mark.anyio


async def append(connection: RedisConnection, job_id: str, seq: int, kind: str = "patches") -> None:
    words = ("XADD", keys.events_key(job_id), f"{seq}-0", "type", kind, "at", 1000 + seq, "body", "{}")
    await connection.once(*words)


async def test_read_gives_the_events_after_a_number_in_order(connection: RedisConnection) -> None:
    for seq in range(1, 11):
        await append(connection, "job", seq)
    log = EventLog(connection)
    assert [event.seq for event in await log.read("job", after=3, count=4)] == [4, 5, 6, 7]
    assert [event.seq for event in await log.read_all("job")] == list(range(1, 11))
    assert await log.read("job", after=10) == []


@pytest.mark.parametrize(
    "event",
    [
        Patches(
            image=1, step=2, steps=3,
            patches=(PatchInfo(rank=0, position=5, row=1, col=2, token=9, confidence=0.5),),
        ),
        Completed(images=(), seconds=1.5),
        Failed(error=Failure(code="invalid_prompt", message='it says "no"', field="prompt")),
    ],
)  # fmt: skip
async def test_a_stored_event_reads_back_as_it_was_written(event: Patches | Completed | Failed) -> None:
    stored = StoredEvent("gen-1", 4, event.type, 12.5, event.body())
    assert stored.parse() == event.model_copy(update={"seq": 4, "job_id": "gen-1", "at": 12.5})


async def test_an_event_without_fields_is_valid_json() -> None:
    assert EVENTS.validate_json(StoredEvent("gen-1", 1, "queued", 1.0, "{}").to_json()).seq == 1
