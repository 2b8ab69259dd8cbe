"""`/v1/generations`: submit, look, cancel, follow, fetch pictures."""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Response
from pydantic import BeforeValidator

from oar_wire.errors import (
    ImageNotFound,
    InvalidAfter,
    InvalidFormat,
    InvalidLimit,
    InvalidLink,
    InvalidPurge,
    JobExpired,
    LinkExpired,
    NoImage,
    NotFinished,
    OutputNotFound,
    ResourceNotFound,
    TooManySockets,
)
from oar_wire.job import GenerationList, GenerationStatus
from oar_wire.openai import OutputFormat
from oar_wire.outputs import OutputData, OutputKind
from oar_wire.request import GenerationRequest
from server.api import documents
from server.api.bodies import JsonRoute
from server.api.deps import Services, Shared
from server.api.etags import is_current, make_etag
from server.api.event_stream import HEARTBEAT, SCHEMA, EventStreamResponse, check_stream_limits, frame
from server.api.following import follow, parse_seq
from server.api.job_status import status_of
from server.api.pictures import MEDIA_TYPES, Rendition, recipe_of, render_in
from server.api.prefer import preferred_wait
from server.api.submit import losses_told, place_of, submit_generation, wait_for_end
from server.jobs.admission import Submitted
from server.jobs.job import JobRecord, JobState
from server.jobs.job_reader import Place

router = APIRouter(prefix="/v1/generations", tags=["generations"], route_class=JsonRoute)

MOST_LISTED = 100
CACHE_FOR_EVER = "private, max-age=31536000, immutable"
MOST_LOADED = 1000  # jobs that one list is made from, however many a tenant may have


def _plain_number(text: str) -> str:
    """One picture has one address: neither `00` nor `0.0` is another."""
    if not re.fullmatch(r"0|-?[1-9][0-9]{0,17}", text, re.ASCII):
        raise ValueError("not an image's number")
    return text


JobId = Annotated[str, Path(description="The `id` of a job", examples=["gen-0f3a5c"])]
ImageIndex = Annotated[int, BeforeValidator(_plain_number), Path(description="The image, counted from 0", examples=[0])]
Prefer = Annotated[
    list[str] | None,
    Header(description="`wait=N` holds the answer back until the job ends, at most N seconds", examples=[["wait=30"]]),
]
Key = Annotated[str | None, Header(description="Makes one job of repeated requests", examples=["order-1729"])]
CancelAfter = Annotated[
    str | None,
    Header(
        description="The field `deadline` as a header, in seconds; where both are given, the sooner counts",
        examples=["60"],
    ),
]
ENDED: dict[int | str, dict[str, Any]] = {200: {"model": GenerationStatus, "description": "The job has ended"}}
EXAMPLES = {
    "shortest": {"value": {"prompt": "a person with short red hair, walking"}},
    "exact": {"value": {"prompt": "an orc, walking", "seed": 7, "order": "spiral", "steps": 16, "guidance": 1.5}},
}


@router.post(
    "",
    summary="Submit a job",
    status_code=202,
    response_model=GenerationStatus,
    responses={**ENDED, **documents.errors(*documents.SUBMIT)},
    openapi_extra={"requestBody": {"content": {"application/json": {"examples": EXAMPLES}}}},
)
async def submit(
    request: GenerationRequest,
    response: Response,
    services: Shared,
    prefer: Prefer = None,
    idempotency_key: Key = None,
    cancel_after: CancelAfter = None,
) -> GenerationStatus:
    """Accepts a job: 202, or 200 when `Prefer: wait=N` was given and it ended within N seconds."""
    submitted = await submit_generation(services, request, idempotency_key, cancel_after)
    return await answer(services, submitted, response, prefer)


async def answer(services: Services, submitted: Submitted, response: Response, prefer: Prefer) -> GenerationStatus:
    """Answers at once, or when the job has ended within the seconds that the client prefers to wait. Raises JobLost."""
    with losses_told():
        return await _answer(services, submitted, response, prefer)


async def _answer(services: Services, submitted: Submitted, response: Response, prefer: Prefer) -> GenerationStatus:
    place, wait = await place_of(services, submitted), preferred_wait(prefer or ())
    if wait is not None:
        seconds = min(float(wait), services.settings.max_wait)
        job = await wait_for_end(services, place.job, seconds)
        response.headers["Preference-Applied"] = f"wait={seconds:.0f}"
        if job.state.is_terminal:
            response.status_code = 200
        place = await services.look(job.id)
    status = await describe_job(services, place)
    response.headers["Location"] = status.url
    return status


@router.get(
    "",
    summary="List the jobs that wait or run",
    response_model=GenerationList,
    responses=documents.errors(InvalidLimit),
)
async def list_jobs(
    services: Shared,
    model: Annotated[str | None, Query(description="Of one model alone", examples=["sprites-64"])] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED, description="Most jobs; the oldest are listed")] = MOST_LISTED,
) -> GenerationList:
    """Your own, the oldest first. What has ended is not listed: whoever submitted it knows its `id`."""
    names = await services.registry.served_models() if model is None else [model]
    ids = [job_id for name in names for job_id in await services.queue.active(name)]
    jobs = sorted(await services.queue.load_many(ids[:MOST_LOADED]), key=lambda job: job.created_at)[:limit]
    return GenerationList(data=[status_of(job, services.root_path) for job in jobs])


@router.get(
    "/{job_id}",
    summary="Look at a job",
    response_model=GenerationStatus,
    responses=documents.errors(*documents.JOB),
)
async def look(job_id: JobId, services: Shared) -> GenerationStatus:
    """Its state, its place in the queue, and when it has ended its pictures or its error."""
    return await describe_job(services, await services.look(job_id))


@router.delete(
    "/{job_id}",
    summary="Cancel a job",
    response_model=GenerationStatus,
    responses={
        202: {"model": GenerationStatus, "description": "It runs, and ends within a step"},
        **documents.errors(*documents.JOB, InvalidPurge),
    },
)
async def cancel(
    job_id: JobId,
    response: Response,
    services: Shared,
    purge: Annotated[bool, Query(description="Whether a job that has ended is deleted, with all it made")] = False,
) -> GenerationStatus:
    """Ends a waiting job at once and a running one within a step (202); a finished one stays, unless it is purged."""
    job = await services.load_job(job_id)
    if job.state.is_terminal and purge:
        await services.results.delete(job.tenant, job.id)
        await services.queue.delete(job)
    if job.is_archived or (job.state.is_terminal and purge):
        return status_of(job, services.root_path)
    state = await services.queue.cancel(job)
    services.metrics.canceled_waiting.inc(job.state is JobState.QUEUED and state is JobState.CANCELED)
    response.status_code = 202 if state is JobState.RUNNING else 200
    return await describe_job(services, await services.queue.look(job_id))


@router.get(
    "/{job_id}/events",
    summary="Follow a job as server-sent events",
    response_class=Response,
    responses={
        200: {
            "description": "Events in the order of their `seq`, which is each one's `id`, to the terminal one",
            "content": {"text/event-stream": {"schema": SCHEMA}},
        },
        204: {"description": "The job has ended and all its events are known: a browser need not come again"},
        **documents.errors(
            *documents.JOB,
            InvalidAfter,
            TooManySockets,
        ),
    },
)
async def events(
    job_id: JobId,
    services: Shared,
    after: Annotated[str, Query(description="The `seq` of the last event that is known", examples=["12"])] = "0",
    last_event_id: Annotated[
        str | None, Header(description="The same, as browsers send it; it counts more", examples=["12"])
    ] = None,
) -> Response:
    """The websocket's events as server-sent ones: replays those after a number, then goes on live.

    A `seq` that is missing was a preview that a newer one replaced.
    """
    # Clients that keep an id from the start send an empty one until they know any.
    known = parse_seq(last_event_id, "Last-Event-ID") if last_event_id else parse_seq(after, "after")
    job = await services.load_job(job_id)
    if job.state.is_terminal and known >= job.seq:
        return Response(status_code=204)
    check_stream_limits(services)
    return EventStreamResponse(services, _frames(services, job, known))


async def _frames(services: Services, job: JobRecord, known: int) -> AsyncGenerator[str]:
    heartbeat, quiet = services.settings.stream_heartbeat, 0.0
    async with aclosing(follow(services, job, known, heartbeat)) as followed:
        async for event in followed:
            quiet = 0.0 if event else quiet + heartbeat
            if quiet >= services.settings.socket_idle:
                return
            yield frame(event.type, event.to_json(), event.seq) if event else HEARTBEAT


@router.get(
    "/{job_id}/images/{index}",
    summary="Fetch a finished picture",
    response_class=Response,
    openapi_extra={"parameters": documents.LINK_PARAMETERS},
    responses={
        200: {"description": "The picture", "content": {kind: {} for kind in MEDIA_TYPES.values()}},
        304: {"description": "The client has it already"},
        **documents.errors(
            *documents.JOB,
            *documents.PICTURES,
            *(ResourceNotFound, ImageNotFound, NotFinished, NoImage, InvalidFormat, InvalidLink, LinkExpired),
        ),
    },
)
async def image(
    job_id: JobId,
    index: ImageIndex,
    services: Shared,
    kind: Annotated[OutputFormat, Query(alias="format", description="What it is encoded as")] = "png",
    compression: Annotated[int, Query(ge=0, le=100, description="Quality of webp and jpeg")] = 100,
    metadata: Annotated[
        bool, Query(description="Whether a PNG carries the text chunks `oar` and `parameters`: what made it")
    ] = True,
    if_none_match: Annotated[str | None, Header(description="An ETag; 304 if it still holds")] = None,
) -> Response:
    """A finished picture. It never changes, so it may be cached for ever."""
    job, png = await finished_png(services, job_id, index)
    rendition = Rendition(kind, compression, metadata and services.settings.image_metadata)
    etag = make_etag(png, rendition.query.encode())
    headers = {"ETag": etag, "Cache-Control": CACHE_FOR_EVER}
    if is_current(etag, if_none_match):
        return Response(status_code=304, headers=headers)
    content = await render_in(services.threads.encoding, services.tenant, png, rendition, recipe_of(job, index))
    return Response(content, media_type=MEDIA_TYPES[kind], headers=headers)


@router.get(
    "/{job_id}/outputs/{kind}/{index}",
    summary="Fetch an output",
    response_class=Response,
    responses={
        200: {"description": "The output", "content": {kind: {} for kind in ("image/png", "image/webp")}},
        304: {"description": "The client has it already"},
        **documents.errors(
            *documents.JOB,
            *(ResourceNotFound, OutputNotFound, NotFinished, NoImage),
        ),
    },
)
async def output(
    job_id: JobId,
    kind: Annotated[OutputKind, Path(description="What it is", examples=["frame"])],
    index: Annotated[int, Path(description="Among the job's outputs of this kind, counted from 0", examples=[0])],
    services: Shared,
    if_none_match: Annotated[str | None, Header(description="An ETag; 304 if it still holds")] = None,
) -> Response:
    """An output as it was made: a frame as soon as its event came, anything else when the job has completed. It never
    changes, so it may be cached for ever."""
    found = await made_output(services, await services.load_job(job_id), kind, index)
    etag = make_etag(found.data)
    headers = {"ETag": etag, "Cache-Control": CACHE_FOR_EVER}
    if is_current(etag, if_none_match):
        return Response(status_code=304, headers=headers)
    return Response(found.data, media_type=found.media_type, headers=headers)


async def made_output(services: Services, job: JobRecord, kind: OutputKind, index: int) -> OutputData:
    """Raises OutputNotFound, NotFinished, NoImage, JobExpired."""
    count = job.params.num_outputs(kind)
    if not 0 <= index < count:
        made = f"{kind}s 0 to {count - 1}" if count else f"no {kind}s"
        raise OutputNotFound(f"this job makes {made}", field="index" if count else "kind")
    found = await services.results.read(job, kind, index)
    if found is None and not job.state.is_terminal:
        job = await services.load_job(job.id)  # it may have ended meanwhile, and left Redis
        found = await services.results.read(job, kind, index)
    if found is not None:
        return found
    if not job.state.is_terminal:
        raise NotFinished(f"{kind} {index} is not there yet", retry_after=1)
    if job.state is not JobState.COMPLETED:
        raise NoImage(f"the job was {job.state}")
    await services.load_job(job.id)  # where it has gone altogether, that says why
    raise JobExpired(f"the outputs of job {job.id} are no longer kept")


async def finished_png(services: Services, job_id: str, index: int) -> tuple[JobRecord, bytes]:
    """Raises JobNotFound, ImageNotFound, NotFinished, NoImage, JobExpired."""
    job = await services.load_job(job_id)
    count = job.params.num_outputs("image")
    if not 0 <= index < count:
        made = f"has images 0 to {count - 1}" if count else "makes frames, which are among its outputs"
        raise ImageNotFound(f"this job {made}", field="index")
    if not job.state.is_terminal:
        raise NotFinished(f"the job is {job.state}", retry_after=1)
    if job.state is not JobState.COMPLETED:
        raise NoImage(f"the job was {job.state}")
    return job, (await made_output(services, job, "image", index)).data


async def describe_job(services: Services, place: Place) -> GenerationStatus:
    """Describes it as it was then: state, place and estimate are of one moment, even if a worker takes the job
    meanwhile."""
    if place.job.state.is_terminal:
        return status_of(place.job, services.root_path)
    return status_of(place.job, services.root_path, place, await services.queue.fleet(place.job.params.model))
