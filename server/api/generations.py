"""`/v1/generations`: submit, look, cancel, fetch pictures."""

import hashlib
import math
import re
import time
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from pydantic import TypeAdapter

from server.api.deps import Services, Shared
from server.api.validation import resolve
from server.errors import ImageNotFound, InvalidRequest, JobExpired, NoImage, NotFinished, ServerError
from server.jobs.estimate import eta
from server.jobs.job import Job, JobState
from server.jobs.queue import Idempotency, Place
from server.schemas.events import Completed, Failed
from server.schemas.generation import GenerationRequest, GenerationStatus, ImageLink, Timings

router = APIRouter(prefix="/v1/generations", tags=["generations"])

PREFER_WAIT = re.compile(r"(?:^|[,;\s])wait=(\d{1,6})(?:$|[,;\s])")
SECONDS = re.compile(r"\d{1,9}(\.\d{1,6})?", re.ASCII)
MAX_KEY_LENGTH = 200
COMPLETED = TypeAdapter(Completed)
FAILED = TypeAdapter(Failed)


@router.post("", status_code=202, response_model=GenerationStatus)
async def submit(
    request: GenerationRequest,
    response: Response,
    services: Shared,
    prefer: Annotated[str, Header()] = "",
    idempotency_key: Annotated[str | None, Header()] = None,
    cancel_after: Annotated[str | None, Header()] = None,
) -> GenerationStatus:
    """Accepts a job: 202, or 200 when `Prefer: wait=N` was given and it ended within N seconds.

    `Cancel-After: seconds` is the field `deadline` as a header; where both are given, the sooner counts.
    """
    try:
        request = _with_deadline(request, cancel_after)
        model = await services.find_model(request.model)
        params = resolve(request, model, services.settings)
        await services.prompts.check(params.prompt, model)
        submitted = await services.queue.submit(params, _idempotency(idempotency_key, request))
    except ServerError:
        services.metrics.requests.labels("rejected").inc()
        raise
    services.metrics.requests.labels("replayed" if submitted.is_replay else "accepted").inc()
    job = await services.queue.load(submitted.job_id)
    wait = PREFER_WAIT.search(prefer)
    if wait is not None:
        seconds = min(float(wait[1]), services.settings.max_wait)
        job = await _wait_for_end(services, job, seconds)
        response.headers["Preference-Applied"] = f"wait={seconds:.0f}"
        if job.state.is_terminal:
            response.status_code = 200
    status = await describe(services, job)
    response.headers["Location"] = status.url
    return status


@router.get("/{job_id}", response_model=GenerationStatus)
async def look(job_id: str, services: Shared) -> GenerationStatus:
    return await describe(services, await services.queue.load(job_id))


@router.delete("/{job_id}", response_model=GenerationStatus)
async def cancel(job_id: str, response: Response, services: Shared) -> GenerationStatus:
    """Ends a waiting job at once and a running one within a step (202); a finished one stays as it is."""
    job = await services.queue.load(job_id)
    state = await services.queue.cancel(job)
    services.metrics.canceled_waiting.inc(job.state is JobState.QUEUED and state is JobState.CANCELED)
    response.status_code = 202 if state is JobState.RUNNING else 200
    return await describe(services, await services.queue.load(job_id))


@router.get("/{job_id}/images/{index}", response_class=Response, responses={200: {"content": {"image/png": {}}}})
async def image(job_id: str, index: int, request: Request, services: Shared) -> Response:
    job = await services.queue.load(job_id)
    if not 0 <= index < job.params.n:
        raise ImageNotFound(f"this job has images 0 to {job.params.n - 1}", field="index")
    if not job.state.is_terminal:
        raise NotFinished(f"the job is {job.state}", retry_after=1)
    if job.state is not JobState.COMPLETED:
        raise NoImage(f"the job was {job.state}")
    png = await services.images.read(job_id, index)
    if png is None:
        raise JobExpired(f"the images of job {job_id} are no longer kept")
    etag = f'"{hashlib.sha256(png).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": "private, max-age=31536000, immutable"}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(png, media_type="image/png", headers=headers)


async def describe(services: Services, job: Job) -> GenerationStatus:
    place = await services.queue.place(job) if not job.state.is_terminal else Place(None, 0, 0)
    url = f"/v1/generations/{job.id}"
    return GenerationStatus(
        id=job.id,
        status=job.state.value,
        seed=job.params.seed,
        params=job.params,
        seq=job.seq,
        attempts=job.attempts,
        cancel_requested=job.cancel_requested,
        position=place.waiting_ahead,
        eta=None if job.state.is_terminal else await _eta(services, job, place),
        timings=Timings(created_at=job.created_at, started_at=job.started_at, finished_at=job.finished_at),
        images=_images(job),
        retry_of=job.retry_of,
        error=FAILED.validate_json(job.result).error if job.state is JobState.FAILED else None,
        url=url,
        stream_url=f"{url}/stream",
    )


async def _eta(services: Services, job: Job, place: Place) -> float | None:
    ahead = place.work_ahead if place.waiting_ahead is not None else 0
    rows = job.params.n * job.params.rows_per_image
    seconds = eta(ahead, place.own_work, rows, await services.queue.fleet(job.params.model))
    return None if seconds is None else round(seconds, 3)


async def _wait_for_end(services: Services, job: Job, seconds: float) -> Job:
    deadline = time.monotonic() + seconds
    seq = job.seq
    async with services.hub.watch(job.id, seq):
        while not job.state.is_terminal:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not await services.hub.wait(job.id, seq, remaining):
                break
            job = await services.queue.load(job.id)
            seq = job.seq
    return await services.queue.load(job.id)


def _images(job: Job) -> tuple[ImageLink, ...]:
    return COMPLETED.validate_json(job.result).images if job.state is JobState.COMPLETED else ()


def _with_deadline(request: GenerationRequest, cancel_after: str | None) -> GenerationRequest:
    """Raises InvalidRequest."""
    if cancel_after is None:
        return request
    if not SECONDS.fullmatch(cancel_after) or not float(cancel_after):
        raise InvalidRequest("invalid_deadline", "Cancel-After is a number of seconds", field="Cancel-After")
    seconds = min(float(cancel_after), request.deadline or math.inf)
    return request.model_copy(update={"deadline": seconds})


def _idempotency(key: str | None, request: GenerationRequest) -> Idempotency | None:
    if key is None:
        return None
    if not 1 <= len(key) <= MAX_KEY_LENGTH:
        message = f"an Idempotency-Key has 1 to {MAX_KEY_LENGTH} characters"
        raise InvalidRequest("invalid_idempotency_key", message, field="Idempotency-Key")
    return Idempotency(key, request.model_dump_json())
