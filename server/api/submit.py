"""Turns a request into an accepted job, for every route that makes one."""

import hashlib
import logging
import math
import re
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, contextmanager
from typing import TypeVar

from pydantic import BaseModel
from starlette.requests import Request

from oar_wire.error import ServerError
from oar_wire.errors import InvalidField, InvalidIdempotencyKey, JobLost, JobNotFound, PriorityNotAllowed
from oar_wire.model import ModelInfo
from oar_wire.request import GenerationRequest
from oar_wire.tenant import Tenant
from server.api.callback_address import check_callback
from server.api.deps import Services
from server.api.event_stream import wait_until_left
from server.api.uploads import EditSource, with_edit
from server.api.validation import resolve
from server.jobs.admission import Idempotency, Submitted
from server.jobs.estimate import output_bytes
from server.jobs.job import JobRecord
from server.jobs.job_reader import Place
from server.jobs.keys import PRIORITIES
from server.tasks import until_one_ends

logger = logging.getLogger(__name__)

MAX_KEY_LENGTH = 200
SECONDS = re.compile(r"\d{1,9}(\.\d{1,6})?", re.ASCII)

R = TypeVar("R", bound=GenerationRequest)


@contextmanager
def rejections_counted(services: Services) -> Generator[None]:
    try:
        yield
    except ServerError:
        services.metrics.requests.labels("rejected").inc()
        raise


@contextmanager
def losses_told() -> Generator[None]:
    """Turns "unknown job" after a submit into JobLost: the accepted job went with Redis' data."""
    try:
        yield
    except JobNotFound as error:
        raise JobLost("Redis has lost its data, and this job with it; submit it again", retry_after=2) from error


async def place_of(services: Services, submitted: Submitted) -> Place:
    """The place of a submitted job, by the answer to its submit. Raises JobLost, or JobExpired for a repeated request
    whose job is no longer kept."""
    with losses_told():
        return submitted.place or await services.look(submitted.job_id)


async def frames_or_loss(frames: AsyncGenerator[str]) -> AsyncGenerator[str]:
    """The frames of a submit's own stream. Raises JobLost."""
    with losses_told():
        async with aclosing(frames):
            async for frame in frames:
                yield frame


async def submit_generation(
    services: Services, request: GenerationRequest, key: str | None, cancel_after: str | None
) -> Submitted:
    """Accepts a plain generation. `key` and `cancel_after` are headers. Raises a ServerError for what cannot be
    served."""
    with rejections_counted(services):
        known = idempotency(key, request)  # a client that repeats itself has less time left than at first
        request = with_deadline(request, cancel_after)
        return await accept(services, request, await services.find_model(request.model), idempotency=known)


async def accept(
    services: Services,
    request: GenerationRequest,
    model: ModelInfo,
    *,
    idempotency: Idempotency | None = None,
    partial_images: int | None = None,
    source: EditSource | None = None,
    needs_prompt: bool = True,
) -> Submitted:
    """`partial_images` of each image are made, or else as many previews as the request has kept. Raises a ServerError
    for what cannot be served."""
    params = resolve(within_ceiling(request, services.tenant), model, services.settings, needs_prompt=needs_prompt)
    read = await services.prompts.read(params, model, request.condition)
    params = read.params
    if partial_images is not None:
        params = params.model_copy(update={"partial_images": partial_images})
    if source is not None:
        params = with_edit(params, source, model)
    services.results_watch.require()
    submitted = await services.queue.admission.submit(
        params,
        services.tenant,
        idempotency,
        source=None if source is None else source.png,
        output_bytes=output_bytes(params, model),
        warnings=read.warnings,
        callback=check_callback(request.callback_url, services.settings),
        needs_worker=True,
    )
    services.metrics.requests.labels("replayed" if submitted.is_replay else "accepted").inc()
    return submitted


def within_ceiling(request: GenerationRequest, tenant: Tenant) -> GenerationRequest:
    """Lowers the default priority to the tenant's highest, where the request names none.

    Raises PriorityNotAllowed.
    """
    ceiling = tenant.priority_ceiling
    if PRIORITIES.index(request.priority) >= PRIORITIES.index(ceiling):
        return request
    if "priority" in request.model_fields_set:
        message = f"the priority {request.priority} is not open to {tenant.name}: {ceiling} is the highest"
        raise PriorityNotAllowed(message, field="priority")
    return request.model_copy(update={"priority": ceiling})


def with_deadline(request: R, cancel_after: str | None) -> R:
    """The request with the sooner of its deadline and the header `Cancel-After`. Raises InvalidRequest."""
    if cancel_after is None:
        return request
    if not SECONDS.fullmatch(cancel_after) or not float(cancel_after):
        raise InvalidField("Cancel-After is a number of seconds", field="Cancel-After", of="deadline")
    seconds = min(float(cancel_after), request.deadline or math.inf)
    return request.model_copy(update={"deadline": seconds})


def idempotency(key: str | None, request: BaseModel, *uploads: bytes) -> Idempotency | None:
    """Raises InvalidRequest for a key that is empty or too long."""
    if key is None:
        return None
    if not 1 <= len(key) <= MAX_KEY_LENGTH:
        message = f"an Idempotency-Key has 1 to {MAX_KEY_LENGTH} characters"
        raise InvalidIdempotencyKey(message, field="Idempotency-Key")
    digests = "".join(hashlib.sha256(upload).hexdigest() for upload in uploads)
    return Idempotency(key, request.model_dump_json(exclude_defaults=True) + digests)


async def wait_for_end(services: Services, job: JobRecord, seconds: float) -> JobRecord:
    """The job as it is when it has ended, or after `seconds`."""
    deadline = time.monotonic() + seconds
    seq = job.seq
    async with services.hub.watch(job.id, seq):
        while not job.state.is_terminal:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not await services.hub.wait(job.id, seq, remaining):
                break
            job = await services.load_job(job.id)
            seq = job.seq
    return await services.load_job(job.id)


async def wait_while_connected(
    services: Services, request: Request, job: JobRecord, seconds: float
) -> JobRecord | None:
    """Waits as `wait_for_end`; None when the client has left before."""
    ended: list[JobRecord] = []

    async def wait() -> None:
        ended.append(await wait_for_end(services, job, seconds))

    await until_one_ends(wait(), wait_until_left(request.receive))
    return ended[0] if ended else None


async def cancel_unfinished(services: Services, job_id: str) -> None:
    """Cancels a job that nobody waits for any more; one that has ended stays as it is."""
    try:
        job = await services.queue.load(job_id)
        if not job.state.is_terminal:
            await services.queue.cancel(job)
            logger.info("canceled, as nobody waits for it job=%s", job_id)
    except ServerError as error:
        logger.warning("could not cancel job=%s: %s", job_id, error)
