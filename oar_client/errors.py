"""Errors of the client, as one tree.

OarError                 code                          status
├── ConnectionFailed     connection_failed             none: no answer came, however often it was tried
├── TimedOut             timed_out                     none: the caller's own bound; the job goes on
├── ClientClosed         client_closed                 none
├── BadAnswer            bad_answer                    the answer's: it is not of this protocol
├── Refused              the server's                  the answer's
│   ├── BadRequest       invalid_*, unknown_field ...  400, 413, 415, 422; none where it was not even sent
│   ├── Unauthorized     the server's                  401, 403
│   ├── NotFound         *_not_found, job_expired      404, 410
│   ├── Conflict         job_not_finished ...          409
│   ├── Overloaded       queue_full, redis_unavailable 429, 502, 503, 504: tried again until patience ended
│   └── ServerMistake    internal_error ...            500 and other ones
└── JobEnded             it ended without pictures     none
    ├── JobFailed        deadline_exceeded ...
    └── JobCanceled      job_canceled
"""

import json
from typing import Any, ClassVar, cast

from oar_wire import errors as wire
from oar_wire.error import FAILURE_EXIT, PERMISSION_EXIT, RETRY_EXIT, ServerError

FIRST_SERVER_STATUS = 500


class OarError(Exception):
    """`code` is stable, `message` one sentence, `field` what is at fault, `retry_after` in seconds."""

    default_code: ClassVar[str] = "oar_error"
    default_exit: ClassVar[int] = FAILURE_EXIT

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        field: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.field = field
        self.status = status
        self.retry_after = retry_after

    @property
    def kind(self) -> type[ServerError] | None:
        """The server's class of this code, with all that is known of it; None for the client's own errors."""
        return wire.find_error(self.code)

    @property
    def exit_code(self) -> int:
        """Exit code of a command that ends with this error: 75 where trying later may help, 77 where a key does not
        suffice."""
        return self.default_exit if self.kind is None else self.kind.exit_code

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.message!r}, code={self.code!r}, status={self.status}, field={self.field!r})"
        )


class ConnectionFailed(OarError):
    default_code = "connection_failed"
    default_exit = RETRY_EXIT


class TimedOut(OarError):
    default_code = "timed_out"


class ClientClosed(OarError):
    default_code = "client_closed"


class BadAnswer(OarError):
    default_code = "bad_answer"


class Refused(OarError):
    default_code = "refused"


class BadRequest(Refused):
    default_code = wire.InvalidRequest.code


class Unauthorized(Refused):
    default_code = "unauthorized"
    default_exit = PERMISSION_EXIT


class NotFound(Refused):
    default_code = wire.ResourceNotFound.code


class Conflict(Refused):
    default_code = "conflict"


class Overloaded(Refused):
    default_code = "overloaded"
    default_exit = RETRY_EXIT


class ServerMistake(Refused):
    default_code = wire.InternalError.code


class JobEnded(OarError):
    """A job that has no pictures; `job_id` tells which."""

    default_code = "job_ended"

    def __init__(self, message: str, *, job_id: str, code: str | None = None, field: str | None = None) -> None:
        super().__init__(message, code=code, field=field)
        self.job_id = job_id


class JobFailed(JobEnded):
    default_code = wire.JobFailure.code


class JobCanceled(JobEnded):
    default_code = "job_canceled"


_BY_STATUS: dict[int, type[Refused]] = {
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    409: Conflict,
    410: NotFound,
    429: Overloaded,
    502: Overloaded,
    503: Overloaded,
    504: Overloaded,
}


def refusal(status: int, error: dict[str, Any], retry_after: float | None = None) -> Refused:
    """Makes the error of an HTTP status and the server's error object, which may be empty."""
    kind = _BY_STATUS.get(status, ServerMistake if status >= FIRST_SERVER_STATUS else BadRequest)
    field = error.get("field", error.get("param"))
    return kind(
        str(error.get("message") or f"the server answered {status}"),
        code=str(error.get("code") or "") or None,
        field=None if field is None else str(field),
        status=status,
        retry_after=retry_after,
    )


def error_object(body: bytes | str) -> dict[str, Any]:
    """The object `error` of an answer; empty where a proxy or something else has answered."""
    try:
        parsed = json.loads(body)
    except ValueError:
        return {}
    found = cast("dict[str, Any]", parsed).get("error") if isinstance(parsed, dict) else None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}
