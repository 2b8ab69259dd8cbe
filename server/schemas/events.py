"""The events of a job. Each has `type`, `seq`, `job_id` and `at` (Unix seconds).

`seq` counts a job's events from 1. A preview that was replaced by a newer one is not kept, so a number that a reader
does not see was a preview; every other event is seen.

A worker writes only an event's own fields; Redis' script adds `seq` and `at`, the reader adds `job_id`.
Clients are to ignore fields that they do not know.
"""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from server.schemas.base import Sent
from server.schemas.generation import Failure, ImageLink

ENVELOPE = {"type", "seq", "job_id", "at"}


class _Event(Sent):
    seq: int = 0
    job_id: str = ""
    at: float = 0.0

    def body(self) -> str:
        """The event's own fields as JSON: what is stored."""
        return self.model_dump_json(exclude=ENVELOPE)


class Queued(_Event):
    type: Literal["queued"] = "queued"


class Started(_Event):
    type: Literal["started"] = "started"
    attempt: int = 1


class PatchInfo(Sent):
    """One decoded token; `rank` counts from 0 in decode order, `position = row * w + col`."""

    rank: int
    position: int
    row: int
    col: int
    token: int
    confidence: float


class Patches(_Event):
    """The positions that one decode step of one image filled. `step` counts from 1."""

    type: Literal["patches"] = "patches"
    image: int
    step: int
    steps: int
    patches: tuple[PatchInfo, ...]


class _Canvas(_Event):
    """The canvas of one image so far; `data` is base64."""

    image: int
    known: int  # positions that are known in this picture
    total: int
    width: int
    height: int
    mime: Literal["image/webp"] = "image/webp"
    data: str


class Preview(_Canvas):
    """Sent now and then; each makes the one before worthless."""

    type: Literal["preview"] = "preview"


class Partial(_Canvas):
    """One of the partial images that a request wished for: after a certain step, without loss, counted from 0."""

    type: Literal["partial"] = "partial"
    index: int


class Restarted(_Event):
    """Another worker took the job over. Every image goes on from its `known` positions; 0 clears the canvas.

    `reason` is `model_changed` where the worker has another model of that name: then all are cleared.
    """

    type: Literal["restarted"] = "restarted"
    attempt: int = 1
    known: tuple[int, ...] = ()
    reason: Literal["worker_left", "model_changed"] = "worker_left"


class Fingerprint(Sent):
    """What made a picture. Two pictures of one request with equal fingerprints are made by the same arithmetic."""

    model_hash: str
    torch: str
    device: str
    dtype: str
    mode: Literal["batched", "deterministic"]


class Completed(_Event):
    type: Literal["completed"] = "completed"
    images: tuple[ImageLink, ...]
    seconds: float  # from the start of the last attempt
    fingerprint: Fingerprint | None = None


class Failed(_Event):
    type: Literal["failed"] = "failed"
    error: Failure


class Canceled(_Event):
    type: Literal["canceled"] = "canceled"


Event = Queued | Started | Patches | Preview | Partial | Restarted | Completed | Failed | Canceled
EVENTS: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="type")])
TERMINAL_TYPES = frozenset({"completed", "failed", "canceled"})
