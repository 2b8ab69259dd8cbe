"""Dead letters: jobs that killed all their workers."""

import pytest

from server.jobs.connection import RedisConnection
from server.jobs.dead import DeadLetters
from server.jobs.job import JobState
from server.jobs.queue import JobQueue
from server.settings import Settings
from tests.server.jobs.protocol import PARAMS, bury, kinds

pytestmark = pytest.mark.anyio


async def test_a_job_that_was_begun_too_often_is_listed(connection: RedisConnection, settings: Settings) -> None:
    job_id = await bury(connection, settings)
    (letter,) = await DeadLetters(connection).list()
    assert (letter.job_id, letter.model, letter.reason) == (job_id, "tiny", "attempts_exhausted")
    assert (letter.attempts, letter.params) == (settings.max_attempts, PARAMS)
    job = await JobQueue(connection, settings).load(job_id)
    assert (job.state, letter.at) == (JobState.FAILED, job.finished_at)
    assert await kinds(connection, job_id) == ["queued", "started", "failed"]


async def test_the_list_is_bounded(connection: RedisConnection, settings: Settings) -> None:
    short = settings.model_copy(update={"dead_length": 2, "max_attempts": 1})
    jobs = [await bury(connection, short) for _ in range(4)]
    assert [letter.job_id for letter in await DeadLetters(connection).list()] == [jobs[3], jobs[2]]
