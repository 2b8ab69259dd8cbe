"""The server's exceptions and the one JSON shape that they have on the wire.

ServerError              status  code
├── InvalidHttp            400   invalid_http          (before there is a request)
├── InvalidJson            400   invalid_json
├── InvalidRequest         422   given (invalid_prompt, invalid_order, unknown_field ...)
├── InvalidKey             401   invalid_api_key       WWW-Authenticate
├── InvalidLink            403   invalid_link
├── LinkExpired            403   link_expired
├── OriginNotAllowed       403   origin_not_allowed
├── PriorityNotAllowed     403   priority_not_allowed
├── NotFound               404   not_found
│   ├── ModelNotFound      404   model_not_found
│   ├── JobNotFound        404   job_not_found
│   ├── ImageNotFound      404   image_not_found
│   └── OutputNotFound     404   output_not_found
├── MethodNotAllowed       405   method_not_allowed    Allow
├── NotFinished            409   job_not_finished
├── NoImage                409   job_has_no_image
├── JobExpired             410   job_expired
├── RequestTimeout         408   request_timeout
├── BodyTooLarge           413   body_too_large
├── UnsupportedMediaType   415   unsupported_media_type
├── HostNotAllowed         421   host_not_allowed
├── UpgradeRequired        426   websocket_only        Upgrade
├── HeadTooLarge           431   head_too_large
├── IdempotencyConflict    422   idempotency_key_reused
├── QueueFull              429   queue_full            Retry-After
│   ├── QueueShareFull     429   queue_share_full      Retry-After
│   └── StorageShareFull   429   storage_share_full    Retry-After
├── RateLimited            429   rate_limited          Retry-After
├── PictureShareFull       429   picture_share_full    Retry-After
├── JobFailed              500   given (deadline_exceeded, attempts_exhausted; /v1/images/* only)
├── WaitTooLong            504   wait_too_long         (/v1/images/* only; the job is canceled)
├── TooManySockets         503   too_many_sockets      Retry-After
├── PictureQueueFull       503   picture_queue_full    Retry-After
├── TooManyUploads         503   too_many_uploads      Retry-After
├── ModelNotReady          503   model_not_ready       Retry-After
├── JobLost                503   job_lost              Retry-After
├── RedisUnavailable       503   redis_unavailable     Retry-After
│   └── WritesRefused      503   writes_refused        Retry-After
├── SlowClient             503   slow_client           (websockets only)
└── InternalError          500   internal_error

Under the addresses that OpenAI's clients use, 422 is 400: the status that they know as a bad request.

On a websocket an error is sent as a frame of the same shape before the socket is closed with `close_code`.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

MAX_OPENAI_RETRY_SECONDS = 60


class ServerError(Exception):
    status: ClassVar[int] = 500
    code: str = "internal_error"
    type: ClassVar[str] = "server_error"
    close_code: ClassVar[int] = 1011

    def __init__(self, message: str, *, field: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = _sendable(message)
        self.field = None if field is None else _sendable(field)
        self.retry_after = retry_after

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
        """OpenAI's clients ignore a longer wait, and come back within a second. They repeat what was in conflict or
        failed, unless they are told that it would go the same way."""
        if self.retry_after is None:
            return {**self.headers, "x-should-retry": "false"}
        return {**self.headers, "Retry-After": str(max(1, math.ceil(min(self.retry_after, MAX_OPENAI_RETRY_SECONDS))))}


def _sendable(text: str) -> str:
    """Half a character of a client's text becomes a question mark."""
    return text.encode(errors="replace").decode()


class InternalError(ServerError):
    pass


class _ClientError(ServerError):
    type = "invalid_request_error"
    close_code = 4400


class InvalidJson(_ClientError):
    status = 400
    code = "invalid_json"


class InvalidHttp(_ClientError):
    status = 400
    code = "invalid_http"


class InvalidRequest(_ClientError):
    status = 422
    code = "invalid_request"

    def __init__(self, code: str, message: str, *, field: str | None = None) -> None:
        super().__init__(message, field=field)
        self.code = code


class NotFound(_ClientError):
    status = 404
    code = "not_found"
    type = "not_found_error"
    close_code = 4404


class ModelNotFound(NotFound):
    code = "model_not_found"


class JobNotFound(NotFound):
    code = "job_not_found"


class ImageNotFound(NotFound):
    code = "image_not_found"


class OutputNotFound(NotFound):
    code = "output_not_found"


class InvalidKey(_ClientError):
    """No key came, or one that nobody was given: the sentence says which, and never repeats it."""

    status = 401
    code = "invalid_api_key"
    type = "authentication_error"
    close_code = 4401

    def __init__(self, message: str, *, was_sent: bool = False) -> None:
        super().__init__(message)
        self._challenge = 'Bearer realm="oar", error="invalid_token"' if was_sent else 'Bearer realm="oar"'

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": self._challenge}


class _Forbidden(_ClientError):
    status = 403
    type = "permission_error"
    close_code = 4403


class InvalidLink(_Forbidden):
    """The signature of a picture's link is none of this server's."""

    code = "invalid_link"


class LinkExpired(_Forbidden):
    code = "link_expired"


class OriginNotAllowed(_Forbidden):
    code = "origin_not_allowed"


class PriorityNotAllowed(_Forbidden):
    code = "priority_not_allowed"


class HostNotAllowed(_ClientError):
    status = 421
    code = "host_not_allowed"
    type = "permission_error"
    close_code = 4403


class MethodNotAllowed(_ClientError):
    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, *, allowed: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.allowed = allowed

    @property
    def headers(self) -> dict[str, str]:
        return {"Allow": ", ".join(self.allowed)}


class NotFinished(_ClientError):
    status = 409
    code = "job_not_finished"
    type = "conflict_error"


class NoImage(_ClientError):
    status = 409
    code = "job_has_no_image"
    type = "conflict_error"


class JobExpired(_ClientError):
    status = 410
    code = "job_expired"
    type = "not_found_error"
    close_code = 4410


class RequestTimeout(_ClientError):
    status = 408
    code = "request_timeout"
    type = "timeout_error"


class UpgradeRequired(_ClientError):
    status = 426
    code = "websocket_only"

    @property
    def headers(self) -> dict[str, str]:
        return {"Upgrade": "websocket", "Connection": "Upgrade"}


class BodyTooLarge(_ClientError):
    status = 413
    code = "body_too_large"


class HeadTooLarge(_ClientError):
    status = 431
    code = "head_too_large"


class UnsupportedMediaType(_ClientError):
    status = 415
    code = "unsupported_media_type"


class IdempotencyConflict(_ClientError):
    status = 422
    code = "idempotency_key_reused"
    type = "conflict_error"


class QueueFull(_ClientError):
    status = 429
    code = "queue_full"
    type = "rate_limit_error"


class QueueShareFull(QueueFull):
    """The tenant's own jobs are too many; others may still have room."""

    code = "queue_share_full"


class PictureShareFull(_ClientError):
    """The tenant's own pictures take all that it may use; others may still have room."""

    status = 429
    code = "picture_share_full"
    type = "rate_limit_error"


class StorageShareFull(QueueFull):
    """The tenant's jobs and pictures take all the memory that it may have; the oldest expire first."""

    code = "storage_share_full"


class RateLimited(_ClientError):
    status = 429
    code = "rate_limited"
    type = "rate_limit_error"
    close_code = 1013


class JobFailed(ServerError):
    code = "job_failed"

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class WaitTooLong(ServerError):
    status = 504
    code = "wait_too_long"
    type = "timeout_error"


class _Unavailable(ServerError):
    status = 503
    type = "unavailable_error"
    close_code = 1013


class TooManySockets(_Unavailable):
    code = "too_many_sockets"


class PictureQueueFull(_Unavailable):
    code = "picture_queue_full"


class TooManyUploads(_Unavailable):
    code = "too_many_uploads"


class ModelNotReady(_Unavailable):
    code = "model_not_ready"


class JobLost(_Unavailable):
    """While somebody waited for it: a job that is asked for later is unknown, or has failed with this code."""

    code = "job_lost"
    close_code = 4410


class RedisUnavailable(_Unavailable):
    code = "redis_unavailable"


class WritesRefused(RedisUnavailable):
    """Redis answers, and takes no writes now: reads are served, submits and cancels are not."""

    code = "writes_refused"


class SlowClient(_Unavailable):
    code = "slow_client"
