"""`oar jobs`: look at the queue of this data folder's Redis, or of REDIS_URL's, and help jobs that failed."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from oar_core.answer import Answer, AnswerGroup
from server.cli.options import load_settings
from server.errors import ServerError
from server.jobs.connection import RedisConnection
from server.jobs.dead import DeadLetter, DeadLetters
from server.jobs.embedded import EmbeddedRedisError, running_redis_url
from server.jobs.job import Job
from server.jobs.queue import Idempotency, JobQueue
from server.jobs.store import ImageStore, Registry
from server.schemas.generation import GenerationParams
from server.schemas.tenant import open_tenant
from server.settings import Settings

T = TypeVar("T")
PROMPT_CHARS = 50

limit_option = click.option("--limit", default=100, show_default=True, type=click.IntRange(1), help="Most lines.")
id_argument = click.argument("job_id", metavar="ID")


@click.group(cls=AnswerGroup)
def jobs() -> None:
    """See what waits, runs and failed; cancel and repeat."""


@jobs.command("list")
@click.option("--model", help="Jobs of one model alone.")
@click.option("--all", "with_ended", is_flag=True, help="Ended jobs that are still kept, too.")
@limit_option
def list_jobs(model: str | None, with_ended: bool, limit: int) -> Answer:
    """List jobs that wait or run, by priority."""
    found = _run(lambda desk: desk.find(model, with_ended=with_ended, limit=limit))
    return Answer([_facts(job) for job in found], map(_line, found))


@jobs.command()
@id_argument
def show(job_id: str) -> Answer:
    """Show all that is known of a job."""
    facts = _facts(_run(lambda desk: desk.queue.load(job_id)))
    return Answer(
        facts,
        (f"{name:<17} {value if isinstance(value, str) else json.dumps(value)}" for name, value in facts.items()),
    )


@jobs.command()
@limit_option
def dead(limit: int) -> Answer:
    """List jobs that were begun too often and given up, the newest first."""
    letters = _run(lambda desk: desk.dead.list(limit))
    lines = (
        "  ".join((letter.job_id, _time(letter.at), letter.model, letter.reason, f"attempts={letter.attempts}"))
        for letter in letters
    )
    return Answer([_letter(letter) for letter in letters], lines)


@jobs.command()
@id_argument
def retry(job_id: str) -> Answer:
    """Submit a dead, failed or canceled job's parameters as a new job. Said twice, it is still one new job.

    An edit can be repeated as long as the picture that it started from is kept: OAR_RESULT_TTL after the job's end.
    """
    new = _run(lambda desk: desk.retry(job_id))
    return Answer(_facts(new), [new.id])


@jobs.command()
@id_argument
def cancel(job_id: str) -> Answer:
    """End a waiting job at once, a running one within a step."""
    job = _run(lambda desk: desk.cancel(job_id))
    return Answer(_facts(job), [job.state.value if job.state.is_terminal else f"{job.state}, cancel requested"])


class _Desk:
    """What the verbs do, once Redis is connected."""

    def __init__(self, connection: RedisConnection, settings: Settings) -> None:
        self.queue = JobQueue(connection, settings)
        self.dead = DeadLetters(connection)
        self._images = ImageStore(connection)
        self._registry = Registry(connection)

    async def find(self, model: str | None, *, with_ended: bool, limit: int) -> list[Job]:
        models = [model] if model else [info.name for info in await self._registry.models()]
        ids = [job_id for name in models for job_id in await self.queue.active(name)]
        found = await self._load(ids[:limit])
        if with_ended and len(found) < limit:
            ended = await self._load(await self.queue.ended())
            ended.sort(key=lambda job: -job.created_at)
            found += [job for job in ended if model in (None, job.params.model)]
        return found[:limit]

    async def _load(self, ids: list[str]) -> list[Job]:
        """Those that are not gone meanwhile."""
        found: list[Job] = []
        for job_id in ids:
            try:
                found.append(await self.queue.load(job_id))
            except ServerError:
                continue
        return found

    async def retry(self, job_id: str) -> Job:
        """The new job is the same tenant's, whose limits do not hold for the operator."""
        letter = await self.dead.find(job_id)
        params, tenant = (letter.params, letter.tenant) if letter else await self._ended(job_id)
        source = await self._source_of(job_id) if params.edit else None
        idempotency = Idempotency(f"retry:{job_id}", job_id)
        queue = self.queue.of(open_tenant().model_copy(update={"name": tenant}))
        submitted = await queue.submit(params, idempotency, source=source, retry_of=job_id)
        if letter is not None:
            await self.dead.remove(letter)
        return await self.queue.load(submitted.job_id)

    async def _ended(self, job_id: str) -> tuple[GenerationParams, str]:
        job = await self.queue.load(job_id)
        if job.state not in ("failed", "canceled"):
            raise click.ClickException(f"job {job_id} is {job.state}; only dead, failed and canceled jobs are repeated")
        return job.params, job.tenant

    async def _source_of(self, job_id: str) -> bytes:
        """The new job has a copy of its own: the old one's is kept as long as the old job."""
        source = await self._images.read_source(job_id)
        if source is None:
            raise click.ClickException(f"the picture that job {job_id} edited is no longer kept")
        return source

    async def cancel(self, job_id: str) -> Job:
        await self.queue.cancel(await self.queue.load(job_id))
        return await self.queue.load(job_id)


def _run(work: Callable[[_Desk], Awaitable[T]]) -> T:
    settings = load_settings({})

    async def connected(url: str) -> T:
        connection = RedisConnection(url, settings.command_timeout)
        try:
            return await work(_Desk(connection, settings))
        finally:
            await connection.close()

    try:
        with running_redis_url(settings) as url:
            return asyncio.run(connected(url))
    except (ServerError, EmbeddedRedisError) as error:
        raise click.ClickException(str(error)) from error


def _facts(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "tenant": job.tenant,
        "state": job.state.value,
        "model": job.params.model,
        "priority": job.priority,
        "attempts": job.attempts,
        "worker": job.owner or None,
        "seq": job.seq,
        "cancel_requested": job.cancel_requested,
        "retry_of": job.retry_of,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "params": job.params.model_dump(mode="json"),
        "result": json.loads(job.result) if job.result else None,
    }


def _letter(letter: DeadLetter) -> dict[str, Any]:
    return {**asdict(letter), "params": letter.params.model_dump(mode="json")}


def _line(job: Job) -> str:
    age = _time(job.created_at)
    return f"{job.id}  {job.state:<9}  {job.priority:<6}  {age}  {job.params.model}  {_prompt(job)}"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _prompt(job: Job) -> str:
    prompt = job.params.prompt.replace("\n", " ")
    return prompt if len(prompt) <= PROMPT_CHARS else f"{prompt[: PROMPT_CHARS - 1]}…"
