"""Tenants in the job protocol: shares of the queue, buckets of requests, whose a job and a dead letter are."""

import asyncio
import json
import time

import anyio.to_thread
import pytest
from click.testing import CliRunner

from oar_cli import main
from oar_wire.errors import JobExpired, JobNotFound, ModelNotReady, QueueFull, QueueShareFull, RateLimited
from oar_wire.tenant import OPEN_TENANT, Tenant
from server.jobs import keys
from server.jobs.connection import RedisConnection
from server.jobs.dead import DeadLetters
from server.jobs.embedded import EmbeddedRedis
from server.jobs.job import JobState
from server.jobs.limiter import RateLimiter
from server.jobs.queue import JobQueue
from server.settings import Settings
from tests.server.jobs.protocol import PARAMS, bury, open_worker, params, run, take

pytestmark = pytest.mark.anyio

ONE = Tenant(name="one", queue_share=0.5)
OTHER = Tenant(name="other", queue_share=1)


@pytest.fixture
def queue(connection: RedisConnection, settings: Settings) -> JobQueue:
    return JobQueue(connection, settings.model_copy(update={"queue_depth": 6}))


async def fill(queue: JobQueue, most: int = 50) -> int:
    """Submits until the queue refuses; how many it took."""
    for count in range(most):
        try:
            await queue.submit(params(priority=("low", "normal", "high")[count % 3]))
        except (QueueFull, ModelNotReady):
            return count
    return most


async def test_a_tenant_fills_its_share_and_others_have_room(queue: JobQueue) -> None:
    one, other = queue.of(ONE), queue.of(OTHER)
    assert await fill(one) == 3
    with pytest.raises(QueueShareFull) as caught:
        await one.submit(PARAMS)
    assert (caught.value.code, caught.value.status) == ("queue_share_full", 429)
    assert caught.value.retry_after is not None
    assert caught.value.retry_after >= 1
    assert await fill(other) == 3
    with pytest.raises(ModelNotReady, match="6 jobs wait already"):
        await other.submit(PARAMS)


async def test_many_submits_at_once_take_no_more_than_the_share(queue: JobQueue) -> None:
    """It is counted in the script that submits: what two processes ask for at one moment cannot both be the last."""
    one = queue.of(ONE)
    outcomes = await asyncio.gather(*(one.submit(PARAMS) for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(outcome, QueueShareFull) for outcome in outcomes) == 17
    assert await queue.depth("tiny") == 3


async def test_a_running_job_counts_and_an_ended_one_does_not(
    connection: RedisConnection, settings: Settings, queue: JobQueue
) -> None:
    one, worker = queue.of(ONE), await open_worker(connection, settings)
    await fill(one)
    claim = await take(worker)
    with pytest.raises(QueueShareFull):
        await one.submit(PARAMS)
    await run(connection, worker.calls.finish(claim, JobState.COMPLETED, "{}", [b"png", b"png"]))
    canceled = await one.load((await one.submit(PARAMS)).job_id)
    with pytest.raises(QueueShareFull):
        await one.submit(PARAMS)
    await one.cancel(canceled)
    await one.submit(PARAMS)


async def test_jobs_that_are_gone_do_not_count(
    connection: RedisConnection, settings: Settings, queue: JobQueue
) -> None:
    """Somebody deleted a job by hand; a worker of an older version ended one and knew nothing of shares."""
    one, worker = queue.of(ONE), await open_worker(connection, settings)
    jobs = [(await one.submit(PARAMS)).job_id for _ in range(3)]
    claim = await take(worker)
    assert claim.job_id == jobs[0]
    await connection.once("DEL", keys.job_key(jobs[1]))
    await connection.once("HDEL", keys.job_key(jobs[0]), keys.Field.SHARE)
    await run(connection, worker.calls.finish(claim, JobState.COMPLETED, "{}", [b"png", b"png"]))
    assert await connection.once("SCARD", keys.share_key("tiny", "one")) == 3
    assert await fill(one) == 2
    assert await connection.once("SISMEMBER", keys.share_key("tiny", "one"), jobs[2])


async def test_nothing_is_left_of_a_tenant_whose_jobs_have_ended(connection: RedisConnection, queue: JobQueue) -> None:
    one = queue.of(ONE)
    for _ in range(3):
        await one.cancel(await one.load((await one.submit(PARAMS)).job_id))
    assert await connection.once("EXISTS", keys.share_key("tiny", "one")) == 0


async def test_the_least_share_is_one_job(queue: JobQueue) -> None:
    assert await fill(queue.of(Tenant(name="small", queue_share=0.01))) == 1


async def test_a_job_is_seen_by_its_tenant_and_the_operator(
    connection: RedisConnection, settings: Settings, queue: JobQueue
) -> None:
    one, other = queue.of(ONE), queue.of(OTHER)
    job_id = (await one.submit(PARAMS)).job_id
    assert (await one.load(job_id)).tenant == (await queue.load(job_id)).tenant == "one"
    with pytest.raises(JobNotFound):
        await other.load(job_id)
    await one.cancel(await one.load(job_id))
    await connection.once("DEL", keys.job_key(job_id))
    for view in (one, queue):
        with pytest.raises(JobExpired, match="was canceled"):
            await view.load(job_id)
    with pytest.raises(JobNotFound):
        await other.load(job_id)


async def test_jobs_of_before_there_were_tenants_are_the_open_ones(
    connection: RedisConnection, settings: Settings, queue: JobQueue
) -> None:
    """A rolling update finds jobs and tombstones without a tenant."""
    job_id = (await queue.submit(PARAMS)).job_id
    everybody = queue.of(Tenant(name=OPEN_TENANT))
    await connection.once("HDEL", keys.job_key(job_id), keys.Field.TENANT)
    assert (await everybody.load(job_id)).tenant == OPEN_TENANT
    with pytest.raises(JobNotFound):
        await queue.of(ONE).load(job_id)
    await connection.once("DEL", keys.job_key(job_id))
    await connection.once("SET", keys.tombstone_key(job_id), "completed")
    with pytest.raises(JobExpired, match="was completed"):
        await everybody.load(job_id)
    with pytest.raises(JobNotFound):
        await queue.of(ONE).load(job_id)


async def test_a_dead_job_is_repeated_for_its_own_tenant(
    redis_server: EmbeddedRedis,
    connection: RedisConnection,
    settings: Settings,
    queue: JobQueue,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    job_id = await bury(connection, settings)
    await connection.once("HSET", keys.job_key(job_id), keys.Field.TENANT, "one")
    (letter,) = await DeadLetters(connection).list()
    assert letter.tenant == OPEN_TENANT
    worker, one = await open_worker(connection, settings), queue.of(ONE)
    own = (await one.submit(PARAMS)).job_id
    await take(worker)
    while unfinished := await worker.unfinished():
        await worker.claim(unfinished[0])
    assert (await DeadLetters(connection).list())[0].tenant == "one"
    result = await anyio.to_thread.run_sync(lambda: CliRunner().invoke(main, ["jobs", "retry", own, "--json"]))
    again = json.loads(result.output)
    assert (again["tenant"], again["retry_of"]) == ("one", own)
    assert (await one.load(again["id"])).retry_of == own


# rates


async def allowed(limiter: RateLimiter, tenant: Tenant, tries: int) -> int:
    count = 0
    for _ in range(tries):
        try:
            await limiter.take(tenant)
            count += 1
        except RateLimited:
            pass
    return count


async def until_refused(limiter: RateLimiter, tenant: Tenant) -> RateLimited:
    while True:
        try:
            await limiter.take(tenant)
        except RateLimited as error:
            return error


async def test_a_burst_passes_and_then_the_rate(connection: RedisConnection) -> None:
    limiter, tenant = RateLimiter(connection), Tenant(name="slow", rate=0.001, burst=5)
    assert await allowed(limiter, tenant, 8) == 5
    with pytest.raises(RateLimited) as caught:
        await limiter.take(tenant)
    assert (caught.value.code, caught.value.status) == ("rate_limited", 429)
    assert 0 < float(caught.value.headers["Retry-After"]) - 500 <= 500, "a token takes 1000 s"


async def test_who_waits_as_long_as_it_was_told_is_served(connection: RedisConnection) -> None:
    limiter, tenant = RateLimiter(connection), Tenant(name="quick", rate=5, burst=2)
    for _ in range(3):
        refusal = await until_refused(limiter, tenant)
        assert refusal.retry_after is not None
        assert refusal.retry_after <= 0.2
        await asyncio.sleep(refusal.retry_after)
        await limiter.take(tenant)


async def test_hammering_costs_nothing(connection: RedisConnection) -> None:
    """A refused request takes no token: what is let through is the rate, however many come."""
    limiter, tenant = RateLimiter(connection), Tenant(name="hammer", rate=20, burst=1)
    start, count = time.monotonic(), 0
    while (seconds := time.monotonic() - start) < 1.0 or count < 2:
        count += await allowed(limiter, tenant, 1)
    assert count <= 1 + 20 * seconds + 1


async def test_tenants_have_buckets_of_their_own_and_processes_share_them(
    redis_server: EmbeddedRedis, connection: RedisConnection
) -> None:
    replica = RedisConnection(redis_server.url)
    tenant = Tenant(name="shared", rate=0.001, burst=4)
    counts = [await allowed(RateLimiter(each), tenant, 3) for each in (connection, replica)]
    assert counts == [3, 1]
    assert await allowed(RateLimiter(replica), Tenant(name="fresh", rate=0.001, burst=4), 3) == 3
    await replica.close()


async def test_no_rate_is_no_limit_and_no_question_to_redis(connection: RedisConnection) -> None:
    assert await allowed(RateLimiter(connection), Tenant(name="free", rate=0), 500) == 500
    assert await connection.once("EXISTS", keys.rate_key("free")) == 0


async def test_a_bucket_is_forgotten_when_it_is_full(connection: RedisConnection) -> None:
    for most in (1_000_000, 2_000_000):
        await RateLimiter(connection).take(Tenant(name="brief", rate=0.001, burst=3))
        assert most - 1_000_000 < await connection.once("PTTL", keys.rate_key("brief")) <= most


async def test_a_clock_that_was_set_back_does_not_lock_a_tenant_out(connection: RedisConnection) -> None:
    """The bucket would be full only in a year: it counts as empty, and fills from now on."""
    limiter, tenant = RateLimiter(connection), Tenant(name="late", rate=10, burst=2)
    await connection.once("SET", keys.rate_key("late"), str(int((time.time() + 3e7) * 1e6)))
    with pytest.raises(RateLimited) as caught:
        await limiter.take(tenant)
    assert caught.value.retry_after is not None
    assert caught.value.retry_after <= 0.11
