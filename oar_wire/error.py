"""Common part of all errors: their facts, and the JSON that it is sent as."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from oar_wire.base import Sent

MAX_OPENAI_RETRY_SECONDS = 60
FAILURE_EXIT = 1
RETRY_EXIT = 75  # EX_TEMPFAIL of sysexits.h
PERMISSION_EXIT = 77  # EX_NOPERM

Place = Literal["any route", "guarded routes", "submits", "model routes", "job routes", "picture routes", "websockets"]


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


@dataclass(frozen=True)
class Example:
    """A message as it may be sent, and the field that it names."""

    message: str
    field: str | None = None


class ServerError(Exception):
    """Base of every error that a server answers with. A class with a `meaning` of its own is one error."""

    status: ClassVar[int] = 500
    code: str
    type: ClassVar[str] = "server_error"
    close_code: ClassVar[int] = 1011  # of a websocket
    exit_code: ClassVar[int] = FAILURE_EXIT  # of a command that ends with it
    meaning: ClassVar[str]  # for the documents
    example: ClassVar[Example]  # its message is the one of an error that is raised without
    names: ClassVar[str | None] = None  # what `field` may hold, for the documents
    is_retried: ClassVar[bool] = False  # whether `Retry-After` goes with it
    places: ClassVar[tuple[Place, ...]] = ()  # where a client meets it, beside the routes that name it themselves

    def __init__(
        self, message: str | None = None, *, field: str | None = None, retry_after: float | None = None
    ) -> None:
        self.message = _sendable(self.example.message if message is None else message)
        super().__init__(self.message)
        self.field = None if field is None else _sendable(field)
        self.retry_after = retry_after

    @classmethod
    def make_example(cls, message: str | None = None) -> "ServerError":
        """An instance for the documents."""
        field, retry_after = cls.example.field, 1 if cls.is_retried else None
        return cls(message, field=field, retry_after=retry_after)

    def to_json(self) -> dict[str, Any]:
        return {"error": {"code": self.code, "message": self.message, "field": self.field, "type": self.type}}

    def to_openai_json(self) -> dict[str, Any]:
        """The shape that OpenAI's clients read."""
        return {"error": {"message": self.message, "type": self.type, "param": self.field, "code": self.code}}

    @property
    def openai_status(self) -> int:
        """OpenAI's clients know a bad request by 400."""
        return 400 if self.status == 422 else self.status

    @property
    def headers(self) -> dict[str, str]:
        if self.retry_after is None:
            return {}
        return {"Retry-After": str(max(1, math.ceil(self.retry_after)))}

    @property
    def openai_headers(self) -> dict[str, str]:
        """OpenAI's clients ignore a longer wait and come back within a second. They repeat a conflict or a failure
        unless this header says that repeating does not help."""
        if self.retry_after is None:
            return {**self.headers, "x-should-retry": "false"}
        return {**self.headers, "Retry-After": str(max(1, math.ceil(min(self.retry_after, MAX_OPENAI_RETRY_SECONDS))))}


def all_errors(kind: type[ServerError] = ServerError) -> Iterator[type[ServerError]]:
    """Every error class below `kind`, itself included, without the groups that have no meaning of their own."""
    if "meaning" in vars(kind):
        yield kind
    for child in kind.__subclasses__():
        yield from all_errors(child)


def _sendable(text: str) -> str:
    """Half a character of a client's text becomes a question mark."""
    return text.encode(errors="replace").decode()
