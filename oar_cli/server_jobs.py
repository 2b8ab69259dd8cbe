"""The verbs of `oar jobs` over HTTP, for whoever reaches a server and not its Redis: a tenant's own jobs."""

from types import TracebackType
from typing import Any, Self, cast

import click

from oar_client import Client, Options
from oar_wire.job import GenerationStatus
from oar_wire.request import GenerationRequest

REPEATABLE = frozenset({"failed", "canceled"})


class ServerJobs:
    """Raises OarError wherever the server is asked."""

    def __init__(self, url: str, api_key: str | None) -> None:
        self._client = Client(url, api_key=api_key)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def find(self, model: str | None, limit: int) -> list[GenerationStatus]:
        return self._client.jobs(model, limit=limit)

    def load(self, job_id: str) -> GenerationStatus:
        return self._client.job(job_id).status

    def cancel(self, job_id: str) -> GenerationStatus:
        job = self._client.job(job_id)
        job.cancel()
        return job.refresh()

    def retry(self, job_id: str) -> GenerationStatus:
        """Raises click.ClickException for a job that is not repeated, or not from here."""
        old = self.load(job_id)
        if old.status not in REPEATABLE:
            raise click.ClickException(f"job {job_id} is {old.status}; only failed and canceled jobs are repeated")
        if old.params.edit is not None:
            raise click.ClickException("a server gives out no picture of an edit: repeat it where its Redis is reached")
        given = old.params.model_dump(mode="json", include=set(GenerationRequest.model_fields), exclude={"prompt"})
        options = cast("Options", given)
        return self._client.submit(old.params.prompt, idempotency_key=f"retry:{job_id}", **options).status


def as_facts(status: GenerationStatus) -> dict[str, Any]:
    """The fields that a job read from Redis has; a server does not tell all of them."""
    reported = status.model_dump(mode="json")
    ended = {"images": reported["images"]} if status.status == "completed" else {"error": reported["error"]}
    return {
        "id": status.id,
        "tenant": None,
        "state": status.status,
        "model": status.params.model,
        "priority": status.params.priority,
        "attempts": status.attempts,
        "worker": None,
        "seq": status.seq,
        "cancel_requested": status.cancel_requested,
        "retry_of": status.retry_of,
        **reported["timings"],
        "params": reported["params"],
        "result": ended if status.timings.finished_at is not None else None,
    }
