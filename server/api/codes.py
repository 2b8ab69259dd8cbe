"""Every error code that a client can meet, for the documents."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from oar_wire.edit import EditRequest
from oar_wire.error import all_errors
from oar_wire.errors import OF_A_FIELD, InvalidRequest
from oar_wire.openai import ImageEditBody, ImageEditFields, ImagesRequest, VariationFields
from oar_wire.request import GenerationRequest
from server.api.faults import field_code

REQUESTS: tuple[type[BaseModel], ...] = (
    *(GenerationRequest, EditRequest),
    *(ImagesRequest, ImageEditFields, ImageEditBody, VariationFields),
)


@dataclass(frozen=True)
class ErrorCode:
    code: str
    status: int
    type: str
    close_code: int | None  # of a websocket; None where none is closed with it
    exit_code: int  # of a command
    field: str | None  # what the error's `field` names
    meaning: str


def error_codes() -> list[ErrorCode]:
    """All of them, by status and code."""
    return sorted((*_classes(), *_fields()), key=lambda error: (error.status, error.code))


def _classes() -> Iterator[ErrorCode]:
    for kind in all_errors():
        if kind.meaning != OF_A_FIELD:
            close_code = kind.close_code if "websockets" in kind.places else None
            yield ErrorCode(kind.code, kind.status, kind.type, close_code, kind.exit_code, kind.names, kind.meaning)


def _fields() -> Iterator[ErrorCode]:
    """One for each code of a request's field."""
    kind = InvalidRequest
    fields: dict[str, list[str]] = {}
    for request in REQUESTS:
        for name in request.model_fields:
            known = fields.setdefault(field_code(name), [])
            known += [] if name in known else [name]
    for code, names in fields.items():
        yield ErrorCode(code, kind.status, kind.type, None, kind.exit_code, ", ".join(names), OF_A_FIELD)


def close_codes() -> dict[str, str]:
    """Close codes of websockets, with the reasons."""
    by_close_code: dict[int, list[str]] = {}
    for error in error_codes():
        if error.close_code is not None:
            by_close_code.setdefault(error.close_code, []).append(error.code)
    reasons = {str(code): f"After an error frame: {', '.join(codes)}" for code, codes in by_close_code.items()}
    reasons["1013"] += "; or without a frame after long silence"
    return dict(sorted({"1000": "The terminal event was sent", **reasons}.items()))


def as_json() -> list[dict[str, Any]]:
    """List of the document's `x-error-codes`."""
    return [
        {"code": error.code, "status": error.status, "type": error.type, "field": error.field, "meaning": error.meaning}
        for error in error_codes()
    ]
