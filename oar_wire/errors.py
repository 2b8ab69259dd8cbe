"""The error shapes, for the OpenAPI document: `server.errors` writes them."""

from oar_wire.base import Sent


class ErrorDetail(Sent):
    code: str  # stable
    message: str  # one sentence
    field: str | None  # at fault
    type: str


class ErrorBody(Sent):
    error: ErrorDetail


class OpenAIErrorDetail(Sent):
    message: str
    type: str
    param: str | None  # the field at fault
    code: str


class OpenAIErrorBody(Sent):
    error: OpenAIErrorDetail
