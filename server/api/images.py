"""`/v1/images/*`: OpenAI's Images API. A request is a job like any other; who leaves cancels it."""

import base64
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import JSONResponse

from oar_wire.error import ServerError
from oar_wire.errors import (
    InvalidField,
    JobExpired,
    MissingField,
    NoImage,
    TooManySockets,
    UnsupportedByModel,
    UnsupportedMediaType,
    WaitTooLong,
    restore,
)
from oar_wire.events import Failed, Partial
from oar_wire.model import ModelInfo
from oar_wire.openai import (
    FinishedImage,
    ImageData,
    ImageEditBody,
    ImageEditFields,
    ImagesRequest,
    ImagesResponse,
    JobFacts,
    PartialImage,
    Usage,
    VariationFields,
)
from server.api import documents
from server.api.bodies import JsonRoute
from server.api.deps import Services, Shared
from server.api.event_stream import HEARTBEAT, SCHEMA, EventStreamResponse, check_stream_limits, frame
from server.api.following import follow
from server.api.image_edits import ReadEdit, read_edit, read_variation
from server.api.pictures import Rendition, recipe_of, reencode, render_in
from server.api.submit import (
    accept,
    cancel_unfinished,
    frames_or_loss,
    idempotency,
    losses_told,
    place_of,
    rejections_counted,
    wait_while_connected,
)
from server.api.substitutes import HEADER, check_sense, substitutes
from server.api.uploads import EditSource, prepare
from server.api.validation import check_makes
from server.jobs.admission import Idempotency
from server.jobs.job import JobRecord, JobState

router = APIRouter(prefix="/v1/images", tags=["images (OpenAI)"], route_class=JsonRoute)

CLIENT_LEFT = 499  # nobody reads it; it is counted
# The share of a picture that is drawn anew where nobody says it: much of what is there stays recognisable.
STRENGTH = 0.6
Key = Annotated[
    str | None,
    Header(description="Makes one job of repeated requests, which its client's leaving does not cancel"),
]

EXAMPLES = {
    "shortest": {"value": {"prompt": "a person with short red hair, walking"}},
    "streamed": {"value": {"prompt": "an orc, walking", "stream": True, "partial_images": 2, "seed": 7}},
}
ENDINGS = (NoImage, JobExpired, TooManySockets, WaitTooLong)
ERRORS = documents.errors(
    *documents.SUBMIT,
    *ENDINGS,
    InvalidField.make_example(),
    openai=True,
)
EDIT_ERRORS = documents.errors(
    *documents.SUBMIT,
    *documents.PICTURES,
    UnsupportedMediaType("send the body as multipart/form-data"),
    InvalidField("the image is no PNG, WebP or JPEG", field="image"),
    InvalidField("the mask has no pixel of alpha 0, so that nothing would be painted", field="mask"),
    *ENDINGS,
    openai=True,
)
ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The pictures; with `stream`, events of the types `*.partial_image` and `*.completed`",
        "content": {"text/event-stream": {"schema": SCHEMA}},
        "headers": {
            HEADER: {"description": "What could not be kept, and what was done instead", "schema": {"type": "string"}}
        },
    }
}


@dataclass(frozen=True)
class Delivery:
    """Request, as far as the answer depends on it."""

    kind: str  # image_generation or image_edit: the prefix of the events' types
    requested: ImagesRequest
    model: ModelInfo
    text_tokens: int
    has_metadata: bool
    warnings: tuple[str, ...]  # what of it could not be kept
    can_come_back: bool  # with its idempotency key; else the job ends when its client leaves

    @property
    def rendition(self) -> Rendition:
        compression = 100 if self.requested.output_compression is None else self.requested.output_compression
        return Rendition(self.requested.output_format or "png", compression, self.has_metadata)

    def facts(self, job: JobRecord, index: int | None = None) -> JobFacts:
        return JobFacts(
            job_id=job.id,
            model=job.params.model,
            seed=job.params.seed,
            fingerprint=job.params.model_hash,
            warnings=self.warnings,
            index=index,
        )

    def usage(self, job: JobRecord, images: int) -> Usage:
        kept = job.params.edit.num_kept if job.params.edit else 0
        return Usage.of(text=self.text_tokens, kept=kept, drawn=images * (self.model.num_tokens - kept))


@router.post(
    "/generations",
    name="generate",
    summary="Make pictures, as OpenAI's images.generate",
    response_model=ImagesResponse,
    responses={**ANSWER, **ERRORS},
    openapi_extra={"requestBody": {"content": {"application/json": {"examples": EXAMPLES}}}},
)
async def generate_images(
    requested: ImagesRequest, request: Request, services: Shared, idempotency_key: Key = None
) -> Response:
    """Makes pictures from a prompt, as OpenAI's `images.generate`."""
    with rejections_counted(services):
        key = idempotency(idempotency_key, requested)
        delivery, job = await _submit(services, "image_generation", requested, key)
    return await _deliver(services, request, delivery, job)


@router.post(
    "/edits",
    summary="Edit a picture, as OpenAI's images.edit",
    response_model=ImagesResponse,
    responses={**ANSWER, **EDIT_ERRORS},
    openapi_extra={"requestBody": documents.form_body(ImageEditFields, ImageEditBody)},
)
async def edit(request: Request, services: Shared, idempotency_key: Key = None) -> Response:
    """Paints parts of a picture anew, as OpenAI's `images.edit`: a multipart body with the file `image`, and a PNG
    `mask` whose pixels of alpha 0 are painted; all others stay exactly as they are. Or the same as JSON.

    Without a mask, the image's own pixels that are not opaque are painted; where all are, a share of the whole picture,
    by `strength`. The image has the model's size: nothing is scaled.
    """
    with rejections_counted(services):
        edit = await read_edit(request, services)
        delivery, job = await _submit_edit(services, edit, idempotency_key)
    return await _deliver(services, request, delivery, job)


@router.post(
    "/variations",
    summary="Vary a picture, as OpenAI's images.create_variation",
    response_model=ImagesResponse,
    responses={**ANSWER, **EDIT_ERRORS},
    openapi_extra={"requestBody": documents.form_body(VariationFields, has_mask=False)},
)
async def vary(request: Request, services: Shared, idempotency_key: Key = None) -> Response:
    """Draws a share of a picture anew, as OpenAI's `images.create_variation`: a multipart body with the file `image`.

    How much is `strength`. Without a `prompt`, which OpenAI does not have here, the model follows the picture alone.
    """
    with rejections_counted(services):
        read = await read_variation(request, services)
        strength = STRENGTH if read.requested.strength is None else read.requested.strength
        varied = ReadEdit(read.requested.model_copy(update={"strength": strength}), read.image)
        delivery, job = await _submit_edit(services, varied, idempotency_key)
    return await _deliver(services, request, delivery, job)


async def _submit_edit(services: Services, edit: ReadEdit, idempotency_key: str | None) -> tuple[Delivery, JobRecord]:
    key = idempotency(idempotency_key, edit.requested, edit.image.data, edit.mask.data if edit.mask else b"")
    model = await services.find_model(edit.requested.model)
    warnings: tuple[str, ...] = ()
    try:
        source = await _prepare(services, edit, model)
    except (MissingField, UnsupportedByModel) as error:
        if services.settings.openai_strict or not _is_open(error, edit, model):
            raise
        # OpenAI's newer models take a picture without any mask, and change what the prompt asks for.
        edit = ReadEdit(edit.requested.model_copy(update={"strength": STRENGTH}), edit.image)
        source = await _prepare(services, edit, model)
        warnings = (f"mask: none was sent, so that {STRENGTH:.0%} of the whole picture are drawn anew (strength)",)
    return await _submit(services, "image_edit", edit.requested, key, source, warnings)


def _is_open(error: Exception, edit: ReadEdit, model: ModelInfo) -> bool:
    """Tells whether an edit was refused since it says nothing of what to draw again."""
    if isinstance(error, MissingField):
        return error.field == "mask"
    return model.can_vary and edit.mask is None and edit.requested.strength is None


async def _prepare(services: Services, edit: ReadEdit, model: ModelInfo) -> EditSource:
    """Raises InvalidRequest."""
    return await services.threads.decoding.run(
        services.tenant, prepare, edit.image, edit.mask, edit.requested, model, services.settings
    )


async def _submit(
    services: Services,
    kind: str,
    requested: ImagesRequest,
    key: Idempotency | None,
    source: EditSource | None = None,
    warnings: tuple[str, ...] = (),
) -> tuple[Delivery, JobRecord]:
    model = await services.find_model(requested.model)
    check_makes(model, "image")
    check_sense(requested)
    warnings += substitutes(requested, model, is_strict=services.settings.openai_strict)
    if requested.stream:
        check_stream_limits(services)
    elif requested.response_format != "b64_json":
        await services.links.prepare(services.tenant)  # before anything is drawn that could then not be linked to
    submitted = await accept(
        services,
        requested.to_generation(model),
        model,
        idempotency=key,
        partial_images=(requested.partial_images or 0) if requested.stream else 0,
        source=source,
        needs_prompt=not isinstance(requested, VariationFields),
    )
    job = (await place_of(services, submitted)).job
    drawn = job.params.drawn_class
    if drawn is not None and not drawn.is_exact:
        warnings += (f"prompt: it names no class of {model.name}; the nearest is {drawn.name!r}",)
    text_tokens = await services.prompts.count(requested.prompt, model) or 0
    has_metadata = requested.metadata and services.settings.image_metadata
    warnings += job.warnings
    return Delivery(kind, requested, model, text_tokens, has_metadata, warnings, can_come_back=key is not None), job


async def _deliver(services: Services, request: Request, delivery: Delivery, job: JobRecord) -> Response:
    if not delivery.requested.stream:
        with losses_told():
            response = await _answer(services, request, delivery, job)
    else:
        response = EventStreamResponse(
            services,
            frames_or_loss(_frames(services, delivery, job)),
            error_body=ServerError.to_openai_json,
            on_close=None if delivery.can_come_back else lambda: cancel_unfinished(services, job.id),
        )
    for warning in delivery.warnings:
        response.headers.append(HEADER, warning.encode("ascii", "replace").decode())
    return response


async def _answer(services: Services, request: Request, delivery: Delivery, job: JobRecord) -> Response:
    seconds = services.settings.images_wait
    ended = await wait_while_connected(services, request, job, seconds)
    if ended is None or not ended.state.is_terminal:
        if ended is not None or not delivery.can_come_back:
            await cancel_unfinished(services, job.id)
        if ended is None:
            return Response(status_code=CLIENT_LEFT)
        raise _too_long(seconds)
    if ended.state is not JobState.COMPLETED:
        raise _fault(ended)
    data = [await _data(services, request, delivery, ended, index) for index in range(ended.params.n)]
    response = ImagesResponse(
        created=int(ended.finished_at or time.time()),
        data=data,
        output_format=delivery.rendition.format,
        quality=delivery.requested.quality_level,
        size=delivery.model.size,
        usage=delivery.usage(ended, ended.params.n),
        oar=delivery.facts(ended),
    )
    return JSONResponse(response.model_dump(mode="json", exclude_none=True))


async def _data(services: Services, request: Request, delivery: Delivery, job: JobRecord, index: int) -> ImageData:
    """A picture, or its address, or both. Raises JobExpired."""
    only = delivery.requested.response_format
    return ImageData(
        b64_json=None if only == "url" else await _finished(services, delivery, job, index),
        url=None if only == "b64_json" else await _link(services, request, delivery, job, index),
    )


async def _link(services: Services, request: Request, delivery: Delivery, job: JobRecord, index: int) -> str:
    """A whole address that opens without a key."""
    path = f"/v1/generations/{job.id}/images/{index}"
    query = await services.links.sign(services.tenant, path, delivery.rendition.query)
    return f"{str(request.base_url).rstrip('/')}{path}?{query}"


async def _frames(services: Services, delivery: Delivery, job: JobRecord) -> AsyncGenerator[str]:
    """Partial images as they come, then the finished ones."""
    deadline = time.monotonic() + services.settings.images_wait
    silence = min(services.settings.stream_heartbeat, services.settings.images_wait)
    async with aclosing(follow(services, job, 0, silence)) as events:
        async for stored in events:
            if stored is None:
                yield HEARTBEAT
            elif stored.type == "partial":
                yield await _partial(services, delivery, job, Partial.model_validate_json(stored.to_json()))
            if time.monotonic() > deadline and not (await services.load_job(job.id)).state.is_terminal:
                raise _too_long(services.settings.images_wait)
    ended = await services.load_job(job.id)
    if ended.state is not JobState.COMPLETED:
        raise _fault(ended)
    for index in range(ended.params.n):
        whole = delivery.usage(ended, 1)
        event = FinishedImage(
            type=f"{delivery.kind}.completed",  # pyright: ignore[reportArgumentType]
            b64_json=await _finished(services, delivery, ended, index),
            created_at=int(ended.finished_at or time.time()),
            size=delivery.model.size,
            quality=delivery.requested.quality_level,
            output_format=delivery.rendition.format,
            oar=delivery.facts(ended, index),
            usage=whole if index == 0 else Usage.of(text=0, kept=0, drawn=whole.output_tokens),
        )
        yield frame(event.type, event.model_dump_json())


async def _partial(services: Services, delivery: Delivery, job: JobRecord, partial: Partial) -> str:
    requested = delivery.rendition
    stored = base64.b64decode(partial.data)
    picture = await services.threads.encoding.run_accepted(
        services.tenant, reencode, stored, requested.format, requested.compression
    )
    event = PartialImage(
        type=f"{delivery.kind}.partial_image",  # pyright: ignore[reportArgumentType]
        partial_image_index=partial.index,
        b64_json=base64.b64encode(picture).decode(),
        created_at=int(partial.at),
        size=delivery.model.size,
        quality=delivery.requested.quality_level,
        output_format=requested.format,
        oar=delivery.facts(job, partial.image),
    )
    return frame(event.type, event.model_dump_json())


async def _finished(services: Services, delivery: Delivery, job: JobRecord, index: int) -> str:
    """Base64 of a finished picture. Raises JobExpired."""
    stored = await services.results.read(job, "image", index)
    if stored is None:
        await services.load_job(job.id)  # where it has gone altogether, that says why
        raise JobExpired(f"the images of job {job.id} are no longer kept")
    threads, made_by = services.threads.encoding, recipe_of(job, index)
    picture = await render_in(threads, services.tenant, stored.data, delivery.rendition, made_by, is_accepted=True)
    return base64.b64encode(picture).decode()


def _too_long(seconds: float) -> WaitTooLong:
    return WaitTooLong(f"the pictures were not finished within {seconds:g} s; the job was canceled")


def _fault(job: JobRecord) -> ServerError:
    """Error of the request whose job has no pictures."""
    if job.state is not JobState.FAILED:
        return NoImage(f"the job was {job.state}")
    failure = Failed.model_validate_json(job.result).error
    return restore(failure.code, failure.message, failure.field)
