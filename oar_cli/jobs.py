"""`oar jobs`: look at the queue of a server that runs, and help jobs that failed.

The server is found by `--url` or OAR_URL, and asked over HTTP as its tenants ask it; else by its Redis, which REDIS_URL
names or the data folder holds, and the operator sees all jobs. No server is started.
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from oar_cli.answer import Answer, AnswerGroup
from oar_cli.failure import CommandFailed
from oar_cli.on_redis import on_redis
from oar_cli.server_jobs import ServerJobs, as_facts
from oar_client import OarError
from oar_wire.error import ServerError
from oar_wire.job import GenerationParams
from oar_wire.tenant import open_tenant
from server.jobs.admission import Idempotency
from server.jobs.connection import RedisConnection
from server.jobs.dead import DeadLetter, DeadLetters
from server.jobs.job import JobRecord
from server.jobs.queue import JobQueue
from server.jobs.store import OutputStore, Registry
from server.settings import Settings

T = TypeVar("T")
PROMPT_CHARS = 50
MOST_LISTED = 100  # by a server, of its tenant's jobs

limit_option = click.option("--limit", default=100, show_default=True, type=click.IntRange(1), help="Most lines.")
id_argument = click.argument("job_id", metavar="ID")
url_option = click.option("--url", envvar="OAR_URL", show_envvar=True, help="A server; else its Redis is looked for.")
key_option = click.option("--api-key", envvar="OAR_API_KEY", show_envvar=True, help="For a server that asks for one.")


@click.group("jobs", cls=AnswerGroup)
def jobs_group() -> None:
    """See what waits, runs and failed; cancel and repeat."""


@jobs_group.command("list")
@click.option("--model", help="Jobs of one model alone.")
@click.option("--all", "with_ended", is_flag=True, help="Ended jobs that are still kept, too; not with --url.")
@limit_option
@url_option
@key_option
def list_active_jobs(model: str | None, with_ended: bool, limit: int, url: str | None, api_key: str | None) -> Answer:
    """List jobs that wait or run, by priority; with --url your own, the oldest first, at most 100."""
    if url:
        if with_ended:
            raise click.UsageError("a server lists no ended jobs: say --all where its Redis is reached, without a URL")
        found = _ask(url, api_key, lambda server: server.find(model, min(limit, MOST_LISTED)))
        facts = [as_facts(status) for status in found]
    else:
        facts = [_facts(job) for job in _run(lambda admin: admin.find(model, with_ended=with_ended, limit=limit))]
    return Answer(facts, map(_line, facts))


@jobs_group.command("show")
@id_argument
@url_option
@key_option
def show_job(job_id: str, url: str | None, api_key: str | None) -> Answer:
    """Show all that is known of a job."""
    if url:
        facts = as_facts(_ask(url, api_key, lambda server: server.load(job_id)))
    else:
        facts = _facts(_run(lambda admin: admin.queue.load(job_id)))
    return Answer(
        facts, (f"{name:<17} {value if isinstance(value, str) else json.dumps(value)}" for name, value in facts.items())
    )


@jobs_group.command()
@limit_option
def dead(limit: int) -> Answer:
    """List jobs that were begun too often and given up, the newest first. They are in the server's Redis alone."""
    letters = _run(lambda admin: admin.dead.list(limit))
    lines = (
        "  ".join((letter.job_id, _time(letter.at), letter.model, letter.reason, f"attempts={letter.attempts}"))
        for letter in letters
    )
    return Answer([_letter(letter) for letter in letters], lines)


@jobs_group.command()
@id_argument
@url_option
@key_option
def retry(job_id: str, url: str | None, api_key: str | None) -> Answer:
    """Submit a dead, failed or canceled job's parameters as a new job. Said twice, it is still one new job.

    An edit can be repeated as long as the picture that it started from is kept: OAR_RESULT_TTL after the job's end.
    """
    if url:
        facts = as_facts(_ask(url, api_key, lambda server: server.retry(job_id)))
    else:
        facts = _facts(_run(lambda admin: admin.retry(job_id)))
    return Answer(facts, [facts["id"]])


@jobs_group.command("cancel")
@id_argument
@url_option
@key_option
def cancel_job(job_id: str, url: str | None, api_key: str | None) -> Answer:
    """End a waiting job at once, a running one within a step."""
    if url:
        facts = as_facts(_ask(url, api_key, lambda server: server.cancel(job_id)))
    else:
        facts = _facts(_run(lambda admin: admin.cancel(job_id)))
    return Answer(facts, [facts["state"] if facts["finished_at"] else f"{facts['state']}, cancel requested"])


class _JobAdmin:
    """The verbs on a connected Redis."""

    def __init__(self, connection: RedisConnection, settings: Settings) -> None:
        self.queue = JobQueue(connection, settings)
        self.dead = DeadLetters(connection)
        self._outputs = OutputStore(connection)
        self._registry = Registry(connection)

    async def find(self, model: str | None, *, with_ended: bool, limit: int) -> list[JobRecord]:
        models = [model] if model else await self._registry.served_models()
        ids = [job_id for name in models for job_id in await self.queue.active(name)]
        found = await self._load(ids[:limit])
        if with_ended and len(found) < limit:
            ended = await self._load(await self.queue.ended())
            ended.sort(key=lambda job: -job.created_at)
            found += [job for job in ended if model in (None, job.params.model)]
        return found[:limit]

    async def _load(self, ids: list[str]) -> list[JobRecord]:
        """Loads the jobs that still exist."""
        found: list[JobRecord] = []
        for job_id in ids:
            try:
                found.append(await self.queue.load(job_id))
            except ServerError:
                continue
        return found

    async def retry(self, job_id: str) -> JobRecord:
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
        source = await self._outputs.read_source(job_id)
        if source is None:
            raise click.ClickException(f"the picture that job {job_id} edited is no longer kept")
        return source

    async def cancel(self, job_id: str) -> JobRecord:
        await self.queue.cancel(await self.queue.load(job_id))
        return await self.queue.load(job_id)


def _run(work: Callable[[_JobAdmin], Awaitable[T]]) -> T:
    return on_redis(lambda connection, settings: work(_JobAdmin(connection, settings)))


def _ask(url: str, api_key: str | None, work: Callable[[ServerJobs], T]) -> T:
    try:
        with ServerJobs(url, api_key) as server:
            return work(server)
    except OarError as error:
        raise CommandFailed(error) from error


def _facts(job: JobRecord) -> dict[str, Any]:
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


def _line(facts: dict[str, Any]) -> str:
    age, prompt = _time(facts["created_at"]), _prompt(facts["params"]["prompt"])
    return f"{facts['id']}  {facts['state']:<9}  {facts['priority']:<6}  {age}  {facts['model']}  {prompt}"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _prompt(text: str) -> str:
    prompt = text.replace("\n", " ")
    return prompt if len(prompt) <= PROMPT_CHARS else f"{prompt[: PROMPT_CHARS - 1]}…"
