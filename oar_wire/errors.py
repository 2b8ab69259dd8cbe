"""Every error that a client can meet, one class each.

A class holds all there is to say: status, code, type, websocket close code, exit code of a command, meaning, example
and where it is met. HTTP answers, close reasons, the client's exceptions, the command line's exit codes, the OpenAPI
document and the table of docs/api.md follow from it. A new error is one class here and whoever raises it.

Under the addresses that OpenAI's clients use, 422 is 400: the status that they know as a bad request.
"""

from collections.abc import Sequence

from oar_wire.error import PERMISSION_EXIT, RETRY_EXIT, Example, ServerError, all_errors

FIELD_CODE = "invalid_"
OF_A_FIELD = "The value of the field is not possible; the message says what is."


class InternalError(ServerError):
    code = "internal_error"
    meaning = "A bug in the server; its log says more."
    example = Example("the server made a mistake; its log says more")
    places = ("any route", "websockets")


class WaitTooLong(ServerError):
    status = 504
    code = "wait_too_long"
    type = "timeout_error"
    meaning = "The pictures were not finished in time; the job was canceled (`/v1/images/*` only)."
    example = Example("the pictures were not finished within 300 s; the job was canceled")


# what is wrong with a request


class _ClientError(ServerError):
    type = "invalid_request_error"
    close_code = 4400


class InvalidHttp(_ClientError):
    """Raised before there is a request."""

    status = 400
    code = "invalid_http"
    meaning = "No HTTP/1.1 request; the connection is closed."
    example = Example("what was sent is no HTTP/1.1 request")


class InvalidJson(_ClientError):
    status = 400
    code = "invalid_json"
    meaning = "The body is not JSON."
    example = Example("the body is no JSON: trailing comma at line 1 column 20")
    places = ("submits",)


class RequestTimeout(_ClientError):
    status = 408
    code = "request_timeout"
    type = "timeout_error"
    meaning = "The request did not arrive in time."
    example = Example("the request's body did not arrive in full within 60 s")
    places = ("submits",)


class MethodNotAllowed(_ClientError):
    status = 405
    code = "method_not_allowed"
    meaning = "This address does not take this method."
    example = Example("this address does not take this method")
    allowed: Sequence[str] = ()

    @classmethod
    def at(cls, allowed: Sequence[str]) -> "MethodNotAllowed":
        """The error of an address that takes these methods."""
        error = cls()
        error.allowed = allowed
        return error

    @property
    def headers(self) -> dict[str, str]:
        return {"Allow": ", ".join(self.allowed)}


class UpgradeRequired(_ClientError):
    status = 426
    code = "websocket_only"
    meaning = "A websocket's address; `/events` sends the same over HTTP."
    example = Example("this address is a websocket's; /events tells the same over plain HTTP")

    @property
    def headers(self) -> dict[str, str]:
        return {"Upgrade": "websocket", "Connection": "Upgrade"}


class BodyTooLarge(_ClientError):
    status = 413
    code = "body_too_large"
    meaning = "The body is too large for this address."
    example = Example("the body is larger than 131072 bytes")
    places = ("submits",)


class HeadTooLarge(_ClientError):
    status = 431
    code = "head_too_large"
    meaning = "Address and headers are too long or too many; the connection is closed."
    example = Example("the request's address and headers are longer than 65536 bytes")


class UnsupportedMediaType(_ClientError):
    status = 415
    code = "unsupported_media_type"
    meaning = "The body is neither JSON nor a form for pictures."
    example = Example("send the body as JSON, with content-type: application/json")
    places = ("submits",)


class IdempotencyConflict(_ClientError):
    status = 422
    code = "idempotency_key_reused"
    type = "conflict_error"
    meaning = "The `Idempotency-Key` was used for another request."
    example = Example("this Idempotency-Key was used for another request", "Idempotency-Key")
    places = ("submits",)


class InvalidRequest(_ClientError):
    status = 422
    code = "invalid_request"
    meaning = "The body is no object, or has too many fields or values."
    example = Example("the body has to be a JSON object")


class MissingField(InvalidRequest):
    code = "missing_field"
    names = "the field"
    meaning = "A required field is missing."
    example = Example("prompt is required", "prompt")
    places = ("submits",)


class UnknownField(InvalidRequest):
    code = "unknown_field"
    names = "the field"
    meaning = "There is no such field."
    example = Example("there is no field 'clip_skip'", "clip_skip")
    places = ("submits",)


class InvalidForm(InvalidRequest):
    code = "invalid_form"
    meaning = "The multipart body cannot be read."
    example = Example("the multipart body cannot be read: a part has no name")


class InvalidAfter(InvalidRequest):
    code = "invalid_after"
    names = "after, Last-Event-ID"
    meaning = "`after` is the `seq` of an event."
    example = Example("after is the seq of an event", "after")
    places = ("websockets",)


class InvalidLimit(InvalidRequest):
    code = "invalid_limit"
    names = "limit"
    meaning = "A list has 1 to 100 jobs."
    example = Example("limit: Input should be at most 100", "limit")


class InvalidDays(InvalidRequest):
    code = "invalid_days"
    names = "days"
    meaning = "Usage is told of 1 to 31 days."
    example = Example("days: Input should be less than or equal to 31", "days")


class InvalidPurge(InvalidRequest):
    code = "invalid_purge"
    names = "purge"
    meaning = "Neither `true` nor `false`."
    example = Example("purge: Input should be a valid boolean", "purge")


class InvalidFormat(InvalidRequest):
    code = "invalid_format"
    names = "format"
    meaning = "There is no such picture format."
    example = Example("format: Input should be 'png', 'webp' or 'jpeg'", "format")


class UnsupportedByModel(InvalidRequest):
    code = "unsupported_by_model"
    names = "model"
    meaning = "The model cannot do this; see `GET /v1/models`."
    example = Example("walks makes frames; POST /v1/generations takes it", "model")


class InvalidCompression(InvalidRequest):
    code = "invalid_compression"
    names = "compression"
    meaning = "The quality is not between 0 and 100."
    example = Example("compression: Input should be less than or equal to 100", "compression")


class InvalidIdempotencyKey(InvalidRequest):
    code = "invalid_idempotency_key"
    names = "Idempotency-Key"
    meaning = "The key is empty or too long."
    example = Example("the key has 300 characters; the limit is 255", "Idempotency-Key")


class PromptTooLong(InvalidRequest):
    code = "prompt_too_long"
    names = "prompt"
    meaning = "The prompt has too many characters or tokens."
    example = Example("the prompt has 3000 characters; the limit is 2000", "prompt")


class InvalidField(InvalidRequest):
    """A value of any other field. Each field has its code, so that this class has several."""

    example = Example("size: sprites-64 makes pictures of 64x64 pixels, not of 1024x1024", "size")

    def __init__(
        self, message: str | None = None, *, field: str | None, of: str | None = None, retry_after: float | None = None
    ) -> None:
        """`of` is the name in the code, where the field is sent under another one."""
        super().__init__(message, field=field, retry_after=retry_after)
        self.code = self.code_of(of or field or "field")

    @staticmethod
    def code_of(field: str) -> str:
        return f"{FIELD_CODE}{field}"


class InvalidOrder(InvalidRequest):
    code = "invalid_order"
    meaning = OF_A_FIELD
    example = Example("order 'zigzag' is not one of raster, halton", "order")


class InvalidSteps(InvalidRequest):
    code = "invalid_steps"
    meaning = OF_A_FIELD
    example = Example("steps is 65; this model takes 1 to 64", "steps")
    places = ("submits",)


class InvalidSampling(InvalidRequest):
    code = "invalid_sampling"
    meaning = OF_A_FIELD
    example = Example("temperature is -1; it lies between 0 and 100", "temperature")


class InvalidPrompt(InvalidRequest):
    code = "invalid_prompt"
    meaning = OF_A_FIELD
    example = Example("the prompt is empty", "prompt")


class InvalidCondition(InvalidRequest):
    code = "invalid_condition"
    meaning = OF_A_FIELD
    example = Example("'gold fish' is no class of this model; did you mean 'goldfish'?", "condition")


# who may ask


class InvalidKey(_ClientError):
    """The sentence says whether no key came or an unknown one, and never repeats it."""

    status = 401
    code = "invalid_api_key"
    type = "authentication_error"
    close_code = 4401
    exit_code = PERMISSION_EXIT
    meaning = "The key is missing or wrong."
    example = Example("send your key, as `Authorization: Bearer KEY`")
    places = ("guarded routes", "websockets")
    was_sent: bool = False

    @classmethod
    def refused(cls, message: str) -> "InvalidKey":
        """The error where a key came."""
        error = cls(message)
        error.was_sent = True
        return error

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": 'Bearer realm="oar"' + (', error="invalid_token"' if self.was_sent else "")}


class _Forbidden(_ClientError):
    status = 403
    type = "permission_error"
    close_code = 4403
    exit_code = PERMISSION_EXIT


class InvalidLink(_Forbidden):
    """The signature of a picture's link is none of this server's."""

    code = "invalid_link"
    meaning = "The signed link is wrong."
    example = Example("this link was not made here, or was changed, or its owner is no longer known")


class LinkExpired(_Forbidden):
    code = "link_expired"
    meaning = "The signed link is too old; a key still opens the picture."
    example = Example("this link has expired; whoever has the key can still fetch the picture")


class OriginNotAllowed(_Forbidden):
    code = "origin_not_allowed"
    meaning = "Pages of this origin may not use the server."
    example = Example("pages of 'https://elsewhere.example' may not use this server (OAR_ALLOWED_ORIGINS)")
    places = ("any route",)


class PriorityNotAllowed(_Forbidden):
    code = "priority_not_allowed"
    meaning = "The tenant may not use this priority."
    example = Example("the priority high is not open to studio: normal is the highest", "priority")
    places = ("submits",)


class HostNotAllowed(_Forbidden):
    status = 421
    code = "host_not_allowed"
    meaning = "The server does not have this name."
    example = Example("this server is not known as 'elsewhere.example' (OAR_ALLOWED_ORIGINS)")
    places = ("any route",)


# what is not there


class ResourceNotFound(_ClientError):
    status = 404
    code = "not_found"
    type = "not_found_error"
    close_code = 4404
    meaning = "There is nothing at this address."
    example = Example("there is nothing here")


class ModelNotFound(ResourceNotFound):
    code = "model_not_found"
    meaning = "There is no such model."
    example = Example("there is no model 'x'", "model")
    places = ("model routes", "submits")


class JobNotFound(ResourceNotFound):
    code = "job_not_found"
    meaning = "There was never such a job."
    example = Example("there is no job 'gen-0'")
    places = ("job routes", "websockets")


class ImageNotFound(ResourceNotFound):
    code = "image_not_found"
    meaning = "The job has fewer images."
    example = Example("this job has images 0 to 0", "index")


class OutputNotFound(ResourceNotFound):
    code = "output_not_found"
    meaning = "The job has fewer outputs of this kind."
    example = Example("this job makes images 0 to 0", "index")


class JobExpired(_ClientError):
    status = 410
    code = "job_expired"
    type = "not_found_error"
    close_code = 4410
    meaning = "The job was deleted after its end."
    example = Example("job gen-0 was completed and is no longer kept")
    places = ("job routes", "websockets")


class NotFinished(_ClientError):
    status = 409
    code = "job_not_finished"
    type = "conflict_error"
    is_retried = True
    meaning = "The picture is not ready; try again after `Retry-After`."
    example = Example("the job is running")


class NoImage(_ClientError):
    status = 409
    code = "job_has_no_image"
    type = "conflict_error"
    meaning = "The job failed or was canceled."
    example = Example("the job was canceled")


# what comes too often


class _TooMany(_ClientError):
    status = 429
    type = "rate_limit_error"
    exit_code = RETRY_EXIT
    is_retried = True


class QueueFull(_TooMany):
    code = "queue_full"
    meaning = "Too many jobs wait."
    example = Example("256 jobs wait or run already")
    places = ("submits",)


class QueueShareFull(QueueFull):
    """Others may still have room."""

    code = "queue_share_full"
    meaning = "The tenant's jobs fill its share of the queue."
    example = Example("128 jobs of studio wait or run already, which is its share of the queue")


class StorageShareFull(QueueFull):
    """The oldest jobs expire first."""

    code = "storage_share_full"
    meaning = "The tenant's jobs fill its share of the memory."
    example = Example("512.0 MiB are kept of the jobs of studio, and there is no room for more")


class PictureShareFull(_TooMany):
    """Others may still have room."""

    code = "picture_share_full"
    meaning = "The tenant's pictures fill its share of the picture threads."
    example = Example("32 pictures of studio wait to be decoded or encoded already, which is its share")
    places = ("picture routes",)


class RateLimited(_TooMany):
    code = "rate_limited"
    close_code = 1013
    meaning = "The tenant sends too many requests."
    example = Example("studio may ask 20 times a second, 40 at once; come back in 0.05 s")
    places = ("guarded routes", "websockets")


# what cannot be served now


class _Unavailable(ServerError):
    status = 503
    type = "unavailable_error"
    close_code = 1013
    exit_code = RETRY_EXIT
    is_retried = True


class TooManySockets(_Unavailable):
    code = "too_many_sockets"
    meaning = "This process has too many streams."
    example = Example("this server has no free event stream")
    places = ("websockets",)


class PictureQueueFull(_Unavailable):
    code = "picture_queue_full"
    meaning = "Too many pictures wait for the picture threads."
    example = Example("64 pictures wait to be decoded or encoded already")
    places = ("picture routes",)


class TooManyUploads(_Unavailable):
    code = "too_many_uploads"
    meaning = "Request bodies fill this process's memory for them."
    example = Example("the bodies of other requests fill the memory that is there for them")
    places = ("submits",)


class ModelNotReady(_Unavailable):
    code = "model_not_ready"
    meaning = "No worker has the model now."
    example = Example("no worker has loaded the model yet")
    places = ("model routes", "submits")


class JobLost(_Unavailable):
    """While somebody waited for it. A job that is asked for later is unknown, or has failed."""

    code = "job_lost"
    close_code = 4410
    meaning = "Redis lost its data and the job; submit it again."
    example = Example("Redis has lost its data, and this job with it; submit it again")
    places = ("submits", "websockets")


class RedisUnavailable(_Unavailable):
    code = "redis_unavailable"
    meaning = "Redis does not answer; nothing was accepted."
    example = Example("the job queue cannot be reached: no connection to Redis")
    places = ("any route", "websockets")


class WritesRefused(RedisUnavailable):
    """Reads are served, submits and cancels are not."""

    code = "writes_refused"
    meaning = "Redis accepts no writes; reads work."
    example = Example("the job queue takes nothing new: its memory is full")
    places = ("submits",)


class ResultsUnavailable(_Unavailable):
    code = "results_unavailable"
    meaning = "The store of results does not answer, or is full."
    example = Example("the store of finished pictures does not answer now")
    places = ("submits", "job routes", "picture routes")


class SlowClient(_Unavailable):
    code = "slow_client"
    meaning = "The client did not read; connect again after `seq` (websockets only)."
    example = Example("the client did not read for 30 s")
    places = ("websockets",)


# why a job failed: codes of the event `failed`, of a job's `error`, and of /v1/images/*


class JobFailure(ServerError):
    code = "job_failed"
    example = Example("the job failed")


class DeadlineExceeded(JobFailure):
    code = "deadline_exceeded"
    meaning = "The job's deadline passed."
    example = Example("the job's deadline passed before it was finished")


class AttemptsExhausted(JobFailure):
    code = "attempts_exhausted"
    meaning = "The job's workers died too often."
    example = Example("the job's worker died too often")


class DataLost(JobFailure):
    code = "data_lost"
    meaning = "Redis lost its data while the job ran; submit it again."
    example = Example("Redis lost its data while the job ran; submit it again")


def find_error(code: str) -> type[ServerError] | None:
    """The class of a code; None for one of a later version."""
    known = next((kind for kind in all_errors() if kind.code == code), None)
    return InvalidField if known is None and code.startswith(FIELD_CODE) else known


def restore(code: str, message: str, field: str | None) -> ServerError:
    """The error that a job has failed with, for the request that waits for it."""
    group = JobFailure if field is None else InvalidRequest
    kind = find_error(code)
    error = (kind if kind is not None and issubclass(kind, group) else group)(message, field=field)
    error.code = code
    return error
