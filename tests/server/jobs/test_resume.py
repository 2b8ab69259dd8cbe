"""Another worker goes on with a job only with the model that began it."""

import pytest

from oar_wire.events import Partial, Patches, PatchInfo, Restarted
from server.jobs.connection import RedisConnection
from server.jobs.events import EventLog
from server.jobs.log import Checkpoint, Claim, NewEvent
from server.jobs.queue import JobQueue
from server.jobs.worker_queue import WorkerQueue
from server.settings import Settings
from server.worker.running import RunningJob
from tests.server.jobs.protocol import PARAMS, kinds, open_worker, params, run, take

pytestmark = pytest.mark.anyio


def patches(position: int) -> NewEvent:
    patch = PatchInfo(rank=position, position=position, row=0, col=position, token=position, confidence=1.0)
    return NewEvent("patches", Patches(image=0, step=1, steps=3, patches=(patch,)).body())


async def open_pair(
    connection: RedisConnection, settings: Settings, first: str, second: str
) -> tuple[WorkerQueue, WorkerQueue]:
    """Workers whose models have these hashes."""
    return await open_worker(connection, settings, "one", first), await open_worker(connection, settings, "two", second)


async def canvas_of(connection: RedisConnection, claim: Claim) -> list[int]:
    """Positions that a worker would go on from."""
    log = await EventLog(connection).read_checkpoint(claim.job_id, claim.base)
    return RunningJob.begin(claim, Checkpoint(log)).pictures[0].positions


async def begin(connection: RedisConnection, worker: WorkerQueue, *positions: int) -> Claim:
    claim = await take(worker)
    await run(connection, worker.calls.emit(claim, claim.seq, [patches(position) for position in positions]))
    return claim


async def hand_over(connection: RedisConnection, before: WorkerQueue, claim: Claim, after: WorkerQueue) -> Claim:
    assert await run(connection, before.calls.release(claim)) == 1
    return await take(after)


async def test_the_same_model_goes_on(connection: RedisConnection, settings: Settings) -> None:
    one, two = await open_pair(connection, settings, "same", "same")
    await JobQueue(connection, settings).submit(PARAMS)
    claim = await hand_over(connection, one, await begin(connection, one, 0, 1), two)
    assert (claim.base, claim.begins_again) == (0, False)
    assert await canvas_of(connection, claim) == [0, 1]


async def test_a_partial_image_that_was_sent_is_not_sent_again(connection: RedisConnection, settings: Settings) -> None:
    """The checkpoint was once the `patches` alone: the next worker then counted its partial images from 0."""
    one, two = await open_pair(connection, settings, "same", "same")
    await JobQueue(connection, settings).submit(params(partial_images=2))
    claim = await begin(connection, one, 0)
    partial = Partial(image=0, known=1, total=3, width=1, height=1, data="", index=0)
    preview = NewEvent("preview", partial.model_copy(update={"type": "preview"}).body())
    events = [NewEvent("partial", partial.body()), preview]
    await run(connection, one.calls.emit(claim, claim.seq + 1, events))
    claim = await hand_over(connection, one, claim, two)
    log = await EventLog(connection).read_checkpoint(claim.job_id, claim.base)
    assert [event.type for event in log] == ["patches", "partial"]
    job = RunningJob.begin(claim, Checkpoint(log))
    assert [job.next_partial(image, step=2, steps=3) for image in range(2)] == [1, 0]


async def test_a_job_names_the_model_that_draws_it(connection: RedisConnection, settings: Settings) -> None:
    """The recipe inside of a PNG tells it: the one that was there when the job was accepted may be gone."""
    old, new = await open_pair(connection, settings, "old", "new")
    queue = JobQueue(connection, settings)
    job_id = (await queue.submit(params(model_hash="older"))).job_id
    hashes = [(await queue.load(job_id)).params.model_hash]
    claim = await take(old)
    hashes.append((await queue.load(job_id)).params.model_hash)
    await hand_over(connection, old, claim, new)
    hashes.append((await queue.load(job_id)).params.model_hash)
    assert hashes == ["older", "old", "new"]


async def test_another_model_of_the_name_begins_anew_and_says_so(
    connection: RedisConnection, settings: Settings
) -> None:
    """The weights were replaced while the job ran: going on would make a picture of two models' tokens."""
    old, new = await open_pair(connection, settings, "old", "new")
    queue = JobQueue(connection, settings)
    job = await queue.load((await queue.submit(PARAMS)).job_id)
    first = await begin(connection, old, 0, 1)
    assert (await queue.look(job.id)).own_work == 12 - 2 * 2
    claim = await hand_over(connection, old, first, new)
    assert (claim.begins_again, claim.is_restart) == (True, True)
    assert await canvas_of(connection, claim) == []
    assert await kinds(connection, job.id) == ["queued", "started", "patches", "patches", "restarted"]
    event = (await EventLog(connection).read_all(job.id))[-1].parse()
    assert isinstance(event, Restarted)
    assert (event.known, event.reason, event.attempt) == ((0, 0), "model_changed", 1)
    assert (await queue.look(job.id)).own_work == 12


async def test_the_new_begin_is_kept_though_its_worker_dies_at_once(
    connection: RedisConnection, settings: Settings
) -> None:
    """What another model drew counts for nobody again, however early the first worker of the new one dies."""
    old, new = await open_pair(connection, settings, "old", "new")
    await JobQueue(connection, settings).submit(PARAMS)
    claim = await hand_over(connection, old, await begin(connection, old, 0, 1), new)
    (taken,) = await new.unfinished()
    again = await new.claim(taken)
    assert again is not None
    assert (again.begins_again, again.base) == (False, claim.base)
    assert await canvas_of(connection, again) == []
    await run(connection, new.calls.emit(again, again.seq, [patches(2)]))
    (taken,) = await new.unfinished()
    last = await new.claim(taken)
    assert last is not None
    assert await canvas_of(connection, last) == [2]
    back = await hand_over(connection, new, last, old)
    assert await canvas_of(connection, back) == []


async def test_a_claim_that_is_repeated_begins_anew_once(connection: RedisConnection, settings: Settings) -> None:
    old, new = await open_pair(connection, settings, "old", "new")
    job_id = (await JobQueue(connection, settings).submit(PARAMS)).job_id
    await run(connection, old.calls.release(await begin(connection, old, 0)))
    taken = await new.take(0.2)
    assert taken is not None
    first, again = await new.claim(taken), await new.claim(taken)
    assert first is not None
    assert again is not None
    assert (again.epoch, again.seq, again.base, again.begins_again) == (first.epoch, first.seq, first.base, True)
    assert (await kinds(connection, job_id)).count("restarted") == 1
