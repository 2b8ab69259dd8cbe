"""Every error code that a client can meet, with its status and what it means."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from oar_wire.edit import EditRequest
from oar_wire.openai import ImageEditBody, ImageEditFields, ImagesRequest, VariationFields
from oar_wire.request import GenerationRequest
from server.api.faults import field_code
from server.errors import InvalidRequest, JobFailed, ServerError

REQUESTS: tuple[type[BaseModel], ...] = (
    *(GenerationRequest, EditRequest),
    *(ImagesRequest, ImageEditFields, ImageEditBody, VariationFields),
)

MEANINGS: Mapping[str, str] = {
    "invalid_json": "The body is no JSON.",
    "invalid_http": "What was sent is no HTTP/1.1 request; the connection is closed.",
    "invalid_api_key": "No key came, or one that nobody was given.",
    "origin_not_allowed": "Pages of this origin may not use the server.",
    "priority_not_allowed": "The tenant may not ask for this priority.",
    "host_not_allowed": "The server is not known under this name.",
    "rate_limited": "The tenant asks too often; ask again after `Retry-After`.",
    "queue_share_full": "The tenant's own jobs fill its share of the queue; try again after `Retry-After`.",
    "picture_share_full": "The tenant's own pictures wait to be decoded or encoded; try again after `Retry-After`.",
    "storage_share_full": "The tenant's kept jobs fill its share of the memory; try again after `Retry-After`.",
    "not_found": "There is nothing at this address.",
    "model_not_found": "There is no model of that name; `GET /v1/models` lists them.",
    "job_not_found": "There never was a job of that id.",
    "image_not_found": "The job has fewer images.",
    "output_not_found": "The job makes fewer outputs of this kind, or none.",
    "method_not_allowed": "This address does not take this method.",
    "job_not_finished": "The picture is not there yet; ask again after `Retry-After`, or follow the stream.",
    "job_has_no_image": "The job failed or was canceled.",
    "job_expired": "The job was there, and what is left of it is its end.",
    "request_timeout": "The request did not arrive in full within the seconds that a client has to send it.",
    "body_too_large": "The body is larger than this address takes.",
    "head_too_large": "The request's address and headers are too long or too many; the connection is closed.",
    "unsupported_media_type": "The body is neither JSON nor, where pictures are sent, a multipart form.",
    "idempotency_key_reused": "The `Idempotency-Key` was used for another request.",
    "queue_full": "Too many jobs wait; try again after `Retry-After`.",
    "wait_too_long": "The pictures were not finished in time; the job was canceled (`/v1/images/*` alone).",
    "too_many_sockets": "All streams of this process are taken; try again after `Retry-After`.",
    "picture_queue_full": "Too many pictures wait to be decoded or encoded; try again after `Retry-After`.",
    "too_many_uploads": "Bodies fill the memory that this process has for them; try again after `Retry-After`.",
    "model_not_ready": "No worker has the model now; try again after `Retry-After`.",
    "job_lost": "Redis has lost its data, and the job with it; submit it again.",
    "redis_unavailable": "The queue cannot be reached; nothing was accepted. Try again after `Retry-After`.",
    "writes_refused": "The queue takes no writes now: what is there can be read. Try again after `Retry-After`.",
    "slow_client": "The client did not read; connect again with the `seq` that is told (websockets alone).",
    "internal_error": "The server made a mistake; its log says more.",
}
# Codes of InvalidRequest that belong to no field of a JSON body, with the field that they name.
INVALID: Mapping[str, tuple[str | None, str]] = {
    "invalid_request": (None, "The body is JSON, but no object, or one of too many fields or values."),
    "missing_field": ("the field", "A field that has to be there is not."),
    "unknown_field": ("the field", "There is no such field; nothing is ignored silently."),
    "invalid_form": (None, "The multipart body cannot be read."),
    "invalid_after": ("after, Last-Event-ID", "`after` is the `seq` of an event."),
    "invalid_limit": ("limit", "A list has 1 to 100 jobs."),
    "invalid_format": ("format", "The picture cannot be had in this format."),
    "invalid_compression": ("compression", "The quality is not one of 0 to 100."),
    "invalid_idempotency_key": ("Idempotency-Key", "The key has no or too many characters."),
    "unsupported_by_model": ("model", "The model makes no such thing; `GET /v1/models` tells what each can do."),
    "prompt_too_long": ("prompt", "The prompt has more characters, or more tokens, than are read."),
}
# Why a job failed: codes of the event `failed`, of a job's `error`, and of /v1/images/*.
FAILURES: Mapping[str, str] = {
    "deadline_exceeded": "The job's deadline passed before it was finished.",
    "attempts_exhausted": "The job's worker died too often, perhaps of this job.",
    "data_lost": "Redis lost its data while the job ran; submit it again.",
}
OF_A_FIELD = "What is given for the field cannot be served; the message says what can."


@dataclass(frozen=True)
class ErrorCode:
    code: str
    status: int
    type: str
    close_code: int | None  # of a websocket; None where none is closed with it
    field: str | None  # what the error's `field` names
    meaning: str


def error_codes() -> list[ErrorCode]:
    """All of them, by status and code."""
    return sorted((*_classes(), *_invalid(), *_failures()), key=lambda error: (error.status, error.code))


def _classes() -> Iterator[ErrorCode]:
    for kind in _subclasses(ServerError):
        is_sent = kind not in {ServerError, InvalidRequest, JobFailed} and not kind.__name__.startswith("_")
        if is_sent:
            meaning = MEANINGS.get(kind.code) or (kind.__doc__ or "").strip()
            yield ErrorCode(kind.code, kind.status, kind.type, kind.close_code, None, meaning)


def _invalid() -> Iterator[ErrorCode]:
    kind = InvalidRequest
    for code, (field, meaning) in INVALID.items():
        yield ErrorCode(code, kind.status, kind.type, kind.close_code, field, meaning)
    fields: dict[str, list[str]] = {}
    for request in REQUESTS:
        for name in request.model_fields:
            known = fields.setdefault(field_code(name), [])
            known += [] if name in known else [name]
    for code, names in fields.items():
        told = ", ".join(names)
        yield ErrorCode(code, kind.status, kind.type, None, told, OF_A_FIELD)


def _failures() -> Iterator[ErrorCode]:
    for code, meaning in FAILURES.items():
        yield ErrorCode(code, JobFailed.status, JobFailed.type, None, None, meaning)


def _subclasses(kind: type[ServerError]) -> Iterator[type[ServerError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _subclasses(child)


def close_codes() -> dict[str, str]:
    """What a websocket is closed with, and why."""
    told: dict[int, list[str]] = {}
    for error in error_codes():
        if error.close_code is not None and error.code in WEBSOCKET_CODES:
            told.setdefault(error.close_code, []).append(error.code)
    reasons = {str(code): f"An error frame was sent before: {', '.join(codes)}" for code, codes in told.items()}
    reasons["1013"] += "; or nothing happened for a long time, without a frame. Connect again with `after`"
    return dict(sorted({"1000": "The terminal event was sent", **reasons}.items()))


WEBSOCKET_CODES = {
    "invalid_api_key",
    "rate_limited",
    "invalid_after",
    "job_not_found",
    "job_expired",
    "job_lost",
    "too_many_sockets",
    "redis_unavailable",
    "slow_client",
    "internal_error",
}


def as_json() -> list[dict[str, Any]]:
    """For the documents' `x-error-codes`."""
    return [
        {"code": error.code, "status": error.status, "type": error.type, "field": error.field, "meaning": error.meaning}
        for error in error_codes()
    ]
