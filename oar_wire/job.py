"""A job: what it carries once defaults are filled in, and how it goes."""

from typing import Annotated, Literal

from pydantic import Field

from oar_wire.base import Sent
from oar_wire.error import ServerError
from oar_wire.options import REVISION_STEPS, PlanOptions, Priority, SamplingOptions
from oar_wire.outputs import OutputKind, OutputLink

State = Literal["queued", "running", "completed", "failed", "canceled"]


class EditParams(Sent):
    """The part of a job's source picture; the picture itself is stored beside the job.

    `inpaint` paints anew what the mask opens, without a trace of what was there. `vary` keeps a share of it. `outpaint`
    lays the source on the canvas and paints around it.
    """

    mode: Literal["inpaint", "vary", "outpaint"]
    offset: tuple[int, int] = (0, 0)  # pixels down and right, of the source's corner on the canvas; outpaint only
    strength: float = 1.0  # share of the masked tokens that is drawn anew; vary only
    feather: int = 0  # pixels over which the edge of the mask fades
    num_kept: int = 0  # tokens of the source that stay


class ChosenClass(Sent):
    """The class that a model of classes drew."""

    name: str
    index: int
    is_exact: Annotated[bool, Field(description="Whether the request named it; else it is the nearest one")] = True


class GenerationParams(SamplingOptions, PlanOptions):
    """A request with every default filled in and checked against the model; what a job carries. An empty prompt is
    none: a picture is varied without one."""

    model: str
    prompt: str
    seed: int
    n: int
    previews: bool = True
    priority: Priority = "normal"
    deadline: float | None = None  # seconds from acceptance
    partial_images: int = 0  # `partial` events of each image, spread evenly over its steps
    edit: EditParams | None = None
    drawn_class: Annotated[
        ChosenClass | None, Field(description="Of a model of classes: the one that the prompt was read as")
    ] = None
    frames: int = 0  # of each video; 0: pictures are made
    model_hash: str = ""

    def num_outputs(self, kind: OutputKind) -> int:
        """Number of outputs of a kind that the job makes."""
        if not self.frames:
            return self.n if kind == "image" else 0
        return {"image": 0, "frame": self.n * self.frames, "video": self.n}[kind]

    @property
    def all_steps(self) -> int:
        """Steps of one image, those that revise it among them."""
        return self.steps + min(self.revise, REVISION_STEPS)

    @property
    def rows_per_image(self) -> int:
        """Engine rows of one image: a guided one also runs the unconditional branch."""
        return 1 if self.guidance == 1 else 2


class Failure(Sent):
    """Why a job failed: the same words as in an HTTP error."""

    code: str
    message: str
    field: str | None = None

    @classmethod
    def of(cls, error: ServerError) -> "Failure":
        return cls(code=error.code, message=error.message, field=error.field)


class ImageLink(Sent):
    index: int
    url: str


class Timings(Sent):
    """Unix seconds by Redis' clock; absent until it happened."""

    created_at: float
    started_at: float | None = None
    finished_at: float | None = None


class GenerationStatus(Sent):
    """The answer of POST, GET and DELETE alike."""

    id: str
    status: State
    seed: int
    params: GenerationParams
    seq: Annotated[int, Field(description="Number of the job's latest event")]
    attempts: int
    cancel_requested: bool
    position: Annotated[int | None, Field(description="Jobs waiting ahead, 0 for one that runs; null: it has ended")]
    eta: Annotated[float | None, Field(description="Seconds until it is likely finished; null when not known")]
    workers: Annotated[int | None, Field(description="Live workers that take its model's jobs; null: it has ended")]
    notice: Annotated[str | None, Field(description="What keeps the job waiting, where that is not other jobs")] = None
    warnings: Annotated[tuple[str, ...], Field(description="What the model will not do of what was asked")] = ()
    timings: Timings
    images: tuple[ImageLink, ...] = ()
    outputs: Annotated[tuple[OutputLink, ...], Field(description="All that a completed job made, its images too")] = ()
    retry_of: Annotated[str | None, Field(description="The dead job that this one repeats")] = None
    error: Failure | None = None
    url: str
    stream_url: str
    events_url: str


class GenerationList(Sent):
    """Jobs that wait or run. Place and estimate are null in a list: they are told of one job."""

    object: Literal["list"] = "list"
    data: list[GenerationStatus]
