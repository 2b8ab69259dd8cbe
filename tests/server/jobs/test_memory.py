"""What a job takes in Redis: previews are the bulk, and only the newest of each image is kept."""

import pytest

from server.jobs import keys
from server.jobs.connection import RedisConnection
from server.jobs.events import EventLog
from server.jobs.job import JobState
from server.jobs.log import Claim, NewEvent
from server.jobs.queue import JobQueue
from server.settings import Settings
from tests.server.jobs.protocol import open_worker, params, run, take

pytestmark = pytest.mark.anyio

IMAGES = 4
PREVIEW_BYTES = 3000  # a 64x64 WebP in base64 has 1,000 to 3,000
PATCHES = NewEvent("patches", '{"image":0,"step":1,"steps":64,"patches":[' + ",".join(["x" * 90] * 1) + "]}")
# What is not a preview: hash, parameters, and 64 `patches` events of each image.
BOUND = IMAGES * (2 * PREVIEW_BYTES + 64 * 200) + 8192


def preview(image: int, number: int) -> NewEvent:
    return NewEvent("preview", f'{{"image":{image},"data":"{number:0{PREVIEW_BYTES}d}"}}', image)


async def size(connection: RedisConnection, *names: str) -> int:
    return sum([await connection.once("MEMORY", "USAGE", name, "SAMPLES", 0) or 0 for name in names])


async def paint(connection: RedisConnection, settings: Settings, previews: int, *, steps: int = 64) -> Claim:
    """A job whose every step is followed by previews of all its images, as the worker sends them."""
    worker = await open_worker(connection, settings)
    await JobQueue(connection, settings).submit(params(n=IMAGES, steps=steps))
    claim = await take(worker)
    seq, sent = claim.seq, 0
    for step in range(steps):
        events = [PATCHES] * IMAGES
        while sent * steps < (step + 1) * previews:
            events += [preview(image, sent) for image in range(IMAGES)]
            sent += 1
        assert await run(connection, worker.calls.emit(claim, seq, events)) == [seq + len(events), 0]
        seq += len(events)
    return claim


async def test_memory_of_a_job_is_bounded_however_many_previews_it_sends(
    connection: RedisConnection, settings: Settings
) -> None:
    sizes: dict[int, int] = {}
    for previews in (8, 64, 512):
        job_id = (await paint(connection, settings, previews)).job_id
        sizes[previews] = await size(
            connection, keys.job_key(job_id), keys.events_key(job_id), keys.previews_key(job_id)
        )
    assert max(sizes.values()) < BOUND, sizes
    assert sizes[512] < 1.1 * sizes[8], sizes
    # Before, all events were in one log: this is what 512 previews of each image took.
    for number in range(512):
        for image in range(IMAGES):
            await connection.once(
                "XADD", "before", "*", "type", "preview", "at", 0, "body", preview(image, number).body
            )
    assert await size(connection, "before") > 50 * sizes[512]


async def test_only_the_newest_preview_of_each_image_is_replayed_and_all_else_is(
    connection: RedisConnection, settings: Settings
) -> None:
    job_id = (await paint(connection, settings, 20)).job_id
    job = await JobQueue(connection, settings).load(job_id)
    events = await EventLog(connection).read_all(job_id)
    seqs = [event.seq for event in events]
    assert seqs == sorted(set(seqs))
    assert sum(event.type == "patches" for event in events) == 64 * IMAGES
    previews = [event for event in events if event.type == "preview"]
    assert sorted(event.body[:10] for event in previews) == [f'{{"image":{image}' for image in range(IMAGES)]
    assert all(event.body.rstrip('"}').endswith("19") for event in previews), "the newest"
    missing = set(range(1, job.seq + 1)) - set(seqs)
    assert len(missing) == 19 * IMAGES, "every number that is missing was a preview"


@pytest.mark.parametrize("count", [1, 3, 7, 64])
async def test_pieces_of_the_log_are_the_log(connection: RedisConnection, settings: Settings, count: int) -> None:
    """Two streams are read as one: at whatever number a reader stops, it gets the rest in order and nothing twice."""
    job_id = (await paint(connection, settings, 5, steps=8)).job_id
    log = EventLog(connection)
    whole = await log.read_all(job_id)
    for after in range(0, whole[-1].seq + 1, 5):
        pieced = []
        while batch := await log.read(job_id, pieced[-1].seq if pieced else after, count):
            pieced += batch
        assert pieced == [event for event in whole if event.seq > after]


async def test_all_of_an_ended_job_expires(connection: RedisConnection, settings: Settings) -> None:
    worker = await open_worker(connection, settings)
    claim = await paint(connection, settings, 3)
    assert await run(connection, worker.calls.finish(claim, JobState.COMPLETED, "{}", [b"png"] * IMAGES)) == 1
    names = [name.decode() for name in await connection.once("KEYS", f"*{claim.job_id}*")]
    assert len(names) == 4 + IMAGES
    for name in names:
        assert 0 < await connection.once("PTTL", name) <= 1000 * (settings.result_ttl + settings.tombstone_ttl), name
