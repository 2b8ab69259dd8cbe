"""Accepts jobs into the queue, or says when to come back."""

import hashlib
import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

from oar_wire.errors import IdempotencyConflict, ModelNotReady, QueueFull, QueueShareFull, StorageShareFull
from oar_wire.job import GenerationParams
from oar_wire.tenant import OPEN_TENANT, Tenant
from server.jobs import keys, scripts
from server.jobs.connection import RedisConnection
from server.jobs.durations import milliseconds
from server.jobs.estimate import Fleet, retry_after
from server.jobs.job_reader import Place
from server.jobs.keys import Field
from server.jobs.store import RecentRegistry
from server.settings import Settings

REFUSALS = ("full", "share", "storage")
UNSERVED_SECONDS = 5  # after which to ask again for a model that no worker serves
MARGIN = 1.2  # rather a little late than refused again
LINE_LENGTH = 3  # times that all jobs of now take: who is refused is asked to come back no later


@dataclass(frozen=True)
class Idempotency:
    """A client's key, and what it asked for as it asked it: defaults and a chosen seed would differ in a repetition."""

    key: str
    request: str

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.request.encode()).hexdigest()


@dataclass(frozen=True)
class Submitted:
    job_id: str
    is_replay: bool  # the idempotency key was known: this is the job of the first call
    place: Place | None  # when it was submitted; None for a repeated request whose job is no longer kept


class SubmitOptions(TypedDict, total=False):
    """Facts of a job beside its parameters."""

    source: bytes | None  # the PNG that an edit starts from
    callback: str  # address that is told of the end; empty is none
    retry_of: str  # the ended job that this one repeats
    output_bytes: int  # about what it will write, counted until it has
    warnings: Sequence[str]  # kept with the job for whoever looks at it
    needs_worker: bool  # a job that would wait for nobody is refused; a repeated request is answered


class Admission:
    def __init__(
        self,
        connection: RedisConnection,
        settings: Settings,
        registry: RecentRegistry,
        traceparent: Callable[[], str],
    ) -> None:
        """`traceparent` finds the trace that a new job belongs to, if any."""
        self._connection = connection
        self._settings = settings
        self._registry = registry
        self._traceparent = traceparent

    async def submit(
        self,
        params: GenerationParams,
        tenant: Tenant,
        idempotency: Idempotency | None = None,
        **options: Unpack[SubmitOptions],
    ) -> Submitted:
        """Accepts a job; never enqueues twice.

        Raises QueueFull, QueueShareFull, StorageShareFull, ModelNotReady (no worker is alive, and one is needed or the
        queue is full), IdempotencyConflict or RedisUnavailable.
        """
        depth = self._settings.queue_depth
        job_id = f"gen-{uuid.uuid4().hex}"
        deadline = self._settings.job_deadline if params.deadline is None else params.deadline
        fields = self._fields(params, options)
        source = options.get("source")
        if source is not None:
            fields[Field.SOURCE] = keys.source_key(job_id)
        reply = await scripts.run(
            self._connection,
            "submit",
            [
                *keys.job_keys(job_id, params.model, params.priority),
                keys.idempotency_key(idempotency.key if idempotency else "", tenant.name),
                keys.share_key(params.model, tenant.name),
                keys.storage_key(tenant.name),
                *keys.queue_keys(params.model),
            ],
            {
                "id": job_id,
                "model": params.model,
                "tenant": tenant.name,
                "fields": fields,
                "work": params.n * params.all_steps * params.rows_per_image,
                "deadline_ms": milliseconds(deadline),
                "depth": depth,
                "share": tenant.max_jobs(depth),
                "space": tenant.max_bytes(self._settings.storage_mib),
                "output_bytes": options.get("output_bytes", 0),
                "fingerprint": idempotency.fingerprint if idempotency else "",
                "idempotency_ms": milliseconds(self._settings.idempotency_ttl),
                "is_served": not options.get("needs_worker", False) or bool((await self.fleet(params.model)).workers),
                "aging_ms": milliseconds(self._settings.priority_aging_seconds),
            },
            [source or b""],
        )
        return await self._outcome(job_id, params, tenant, reply)

    def _fields(self, params: GenerationParams, options: SubmitOptions) -> dict[Field, str]:
        """Fields of a new job's hash that come from its request."""
        fields: dict[Field, str] = {
            Field.MODEL: params.model,
            Field.PRIORITY: params.priority,
            Field.PARAMS: params.model_dump_json(),
            Field.ROWS: str(params.rows_per_image),
            Field.RETRY_OF: options.get("retry_of", ""),
        }
        if warnings := options.get("warnings"):
            fields[Field.WARNINGS] = json.dumps(warnings)
        if callback := options.get("callback"):
            fields[Field.CALLBACK] = callback
        if trace := self._traceparent():
            fields[Field.TRACE] = trace
        return fields

    async def fleet(self, model: str) -> Fleet:
        """The workers of a model that were alive `registry_seconds` ago."""
        return Fleet.of(model, await self._registry.workers())

    async def _outcome(self, job_id: str, params: GenerationParams, tenant: Tenant, reply: Sequence[Any]) -> Submitted:
        """Turns what the script decided into an answer or an error."""
        outcome = reply[0].decode()
        if outcome == "accepted":
            return Submitted(job_id, is_replay=False, place=Place.read(job_id, reply[1:5]))
        if outcome == "replayed":
            known = reply[5].decode()
            return Submitted(known, is_replay=True, place=Place.read(known, reply[1:5]) if reply[4] else None)
        if outcome == "unserved":
            message = f"no worker serves the model {params.model!r} now"
            raise ModelNotReady(message, field="model", retry_after=UNSERVED_SECONDS)
        if outcome in REFUSALS:
            raise await self._refusal(params, tenant, outcome, reply[1:])
        raise IdempotencyConflict("this Idempotency-Key was used for another request", field="Idempotency-Key")

    async def _refusal(
        self, params: GenerationParams, tenant: Tenant, outcome: str, facts: Sequence[int]
    ) -> QueueFull | ModelNotReady:
        fleet = await self.fleet(params.model)
        if outcome == "storage":
            return _storage_refusal(tenant, fleet, *facts)
        num_jobs, work = facts
        # The others are taken to have as many pictures each as the job that is refused.
        pictures = num_jobs * params.n
        seconds = retry_after(work, fleet, pictures * params.rows_per_image, pictures)
        if not fleet.workers and outcome == "full":
            return ModelNotReady(f"{num_jobs} jobs wait already and no worker is alive", retry_after=seconds)
        line = keys.line_key(params.model, tenant.name if outcome == "share" else "")
        place = await self._place_in_line(line, num_jobs, seconds)
        if outcome == "share":
            message = f"{num_jobs} jobs of {tenant.name} wait or run already, which is its share of the queue"
            return QueueShareFull(message, retry_after=place)
        return QueueFull(f"{num_jobs} jobs wait or run already", retry_after=place)

    async def _place_in_line(self, line: str, num_jobs: int, seconds: float) -> float:
        """Finds when to come back, in seconds: those who are refused get one place after the other of the `num_jobs`
        that will be free after `seconds`."""
        first = milliseconds(MARGIN * seconds)
        gap = max(1, first // max(1, num_jobs))
        args = {"first_ms": first, "gap_ms": gap, "most_ms": int(first * LINE_LENGTH)}
        return await scripts.run(self._connection, "line", [line], args) / 1000


def _storage_refusal(tenant: Tenant, fleet: Fleet, num_bytes: int, wait: int, work: int) -> StorageShareFull:
    """`wait` are the milliseconds until enough has expired; -1 where jobs have to end before."""
    owner = "all jobs" if tenant.name == OPEN_TENANT else f"the jobs of {tenant.name}"
    message = f"{num_bytes / 2**20:.1f} MiB are kept of {owner}, and there is no room for more"
    return StorageShareFull(message, retry_after=retry_after(work, fleet) if wait < 0 else wait / 1000)
