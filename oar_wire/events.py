"""The events of a job. Each has `type`, `seq`, `job_id` and `at` (Unix seconds).

`seq` counts a job's events from 1. A preview that was replaced by a newer one is not kept, so a number that a reader
does not see was a preview; every other event is seen.

A worker writes only an event's own fields; Redis' script adds `seq` and `at`, the reader adds `job_id`.
Clients are to ignore fields that they do not know.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from oar_wire.base import CACHED, Sent
from oar_wire.job import Failure, ImageLink
from oar_wire.outputs import OutputLink

ENVELOPE = {"type", "seq", "job_id", "at"}


class _Event(Sent):
    seq: Annotated[int, Field(description="Counts the job's events from 1; `after` takes it")] = 0
    job_id: str = ""
    at: Annotated[float, Field(description="Unix seconds, by Redis' clock")] = 0.0

    def body(self) -> str:
        """The event's own fields as JSON: what is stored."""
        return self.model_dump_json(exclude=ENVELOPE)


class Queued(_Event):
    type: Literal["queued"] = "queued"


class Started(_Event):
    type: Literal["started"] = "started"
    attempt: Annotated[int, Field(description="How often the job was begun, from 1")] = 1


class PatchInfo(Sent):
    """One decoded token; `rank` counts from 0 in decode order, `position = row * w + col`.

    Models that write from coarse to fine say `group` and `place` in place of `row` and `col`.
    """

    rank: int = Field(description="When it was decoded, counted from 0")
    position: int = Field(description="Where it is: in a grid row by row, in a sequence from the first token on")
    row: int | None = None
    col: int | None = None
    group: int | None = Field(None, description="Of a sequence: the step of the model's layout that draws it, from 0")
    place: int | None = Field(None, description="Where it is in its group, from 0")
    token: int = Field(description="Its id in the image tokenizer's vocabulary")
    confidence: float = Field(description="The probability that the model gave to it")


class Patches(_Event):
    """The positions that one decode step of one image filled. `step` counts from 1."""

    type: Literal["patches"] = "patches"
    image: int = Field(description="Index of the image within the request")
    step: int
    steps: int = Field(description="Of this image; an upper bound under adaptive group sizes")
    patches: tuple[PatchInfo, ...]
    surprises: tuple[float, ...] = Field(
        (),
        description="Of images that are to be revised: by how many nats each token is less likely than draws from its "
        "distribution are on average",
    )

    def body(self) -> str:
        return self.model_dump_json(exclude=ENVELOPE if self.surprises else ENVELOPE | {"surprises"}, exclude_none=True)


class Revised(_Event):
    """Tokens of a whole image that were drawn again; they replace earlier ones.

    `rank` counts them alone. `step` counts the revision's own steps, from 1.
    """

    type: Literal["revised"] = "revised"
    image: int = Field(description="Index of the image within the request")
    step: int
    steps: int
    patches: tuple[PatchInfo, ...]

    def body(self) -> str:
        return self.model_dump_json(exclude=ENVELOPE, exclude_none=True)


class _Canvas(_Event):
    """The canvas of one image so far; `data` is base64."""

    image: int = Field(description="Index of the image within the request")
    known: int = Field(description="Positions that are known in this picture; the rest is the decoder's guess")
    total: int = Field(description="Positions of the grid")
    width: int = Field(description="Pixels")
    height: int = Field(description="Pixels")
    resolution: tuple[int, int] | None = Field(
        None, description="Width and height in pixels that the known positions tell of, where that is less"
    )
    mime: Literal["image/webp"] = "image/webp"
    data: str = Field(description="The picture in base64")

    def body(self) -> str:
        return self.model_dump_json(exclude=ENVELOPE, exclude_none=True)


class Preview(_Canvas):
    """The picture so far; it replaces the preview before it."""

    type: Literal["preview"] = "preview"


class Partial(_Canvas):
    """The picture so far, without loss; it is never replaced. OpenAI's partial images are these."""

    type: Literal["partial"] = "partial"
    index: int = Field(description="Of the kept ones of this image, counted from 0")


class Frame(_Event):
    """A finished frame of a video, which can be fetched. Frames come in order."""

    type: Literal["frame"] = "frame"
    image: int = Field(description="Index of the video within the request")
    frame: int = Field(description="Of the video, counted from 0")
    frames: int = Field(description="How many the video has")
    step: int
    steps: int = Field(description="Of this video")
    output: OutputLink


class Restarted(_Event):
    """Another worker took the job. Each image continues from its `known` positions, each video from as many frames;
    0 clears the canvas.

    `reason` is `model_changed` if the worker has another model of that name; then all are cleared.
    """

    type: Literal["restarted"] = "restarted"
    attempt: Annotated[int, Field(description="How often the job was begun, from 1")] = 1
    known: Annotated[tuple[int, ...], Field(description="Positions of each image, or frames, that are kept")] = ()
    reason: Literal["worker_left", "model_changed"] = "worker_left"


class Fingerprint(Sent):
    """The origin of a picture. Two pictures of one request with equal fingerprints are made by the same arithmetic."""

    model_hash: str
    torch: str
    device: str
    dtype: str
    mode: Literal["batched", "deterministic"]
    kernels: str = Field("", description="What was chosen for this machine: instructions, threads, layout of weights")


class Completed(_Event):
    type: Literal["completed"] = "completed"
    images: tuple[ImageLink, ...]
    outputs: Annotated[tuple[OutputLink, ...], Field(description="All that was made, images too")] = ()
    seconds: float = Field(description="From the start of the last attempt")
    fingerprint: Fingerprint | None = None


class Failed(_Event):
    type: Literal["failed"] = "failed"
    error: Failure


class Canceled(_Event):
    type: Literal["canceled"] = "canceled"


Event = Queued | Started | Patches | Revised | Preview | Partial | Frame | Restarted | Completed | Failed | Canceled
EVENTS: TypeAdapter[Event] = TypeAdapter(
    Annotated[Event, Field(discriminator="type")], config=ConfigDict(cache_strings=CACHED)
)
TERMINAL_TYPES = frozenset({"completed", "failed", "canceled"})
