"""`POST /v1/generations`: what is asked, what it means once defaults are filled in, and how it goes."""

from typing import Annotated, Literal

from pydantic import Field

from server.schemas.base import Accepted, Sent
from server.schemas.model import DEFAULT_CANDIDATES, DEFAULT_ENTROPY_BOUND

MAX_SEED = 2**63 - 1
MAX_POSITIONS = 1 << 14  # of a grid: 128 x 128
MAX_ENTROPY_BOUND = 10_000  # nats
MAX_CANDIDATES = 10_000
Priority = Literal["low", "normal", "high"]
GuidanceSchedule = Literal["constant", "linear", "cosine"]
# The first bad position is enough: each would become an error of its own.
Positions = Annotated[list[int], Field(max_length=MAX_POSITIONS, fail_fast=True)]
Share = Annotated[float, Field(ge=0, le=1)]
State = Literal["queued", "running", "completed", "failed", "canceled"]


class DrawingOptions(Accepted):
    """What every way to ask for pictures has in common; null is the model's default."""

    seed: int | None = Field(None, ge=0, le=MAX_SEED, description="Decides every draw; chosen and returned if absent")
    steps: int | None = Field(None, ge=1, description="Decode steps, at most the number of grid positions")
    group_sizes: str | None = Field(
        None, max_length=200, description="How many positions each step decodes, by a schedule's name"
    )
    entropy_bound: float | None = Field(
        None,
        ge=0,
        le=MAX_ENTROPY_BOUND,
        description="Nats that an `adaptive` group may lose; nothing to other group sizes",
    )
    candidates: int | None = Field(
        None,
        ge=1,
        le=MAX_CANDIDATES,
        description="Positions that the model is asked about for each that a step fills, in order `shortlist`; "
        "nothing to other orders",
    )
    guidance: float | None = Field(None, ge=0, le=100, description="Classifier-free guidance; 1 is none")
    guidance_interval: Annotated[list[Share], Field(min_length=2, max_length=2)] | None = Field(
        None,
        description="From which share of the decoded positions on guidance holds, and up to which; 0 and 1 is always. "
        "Outside, a picture costs half",
    )
    guidance_schedule: GuidanceSchedule | None = Field(
        None, description="How guidance grows from 1 with the share of the decoded positions; `constant`: not at all"
    )
    temperature: float | None = Field(None, ge=0, le=100, description="Flattens (> 1) or sharpens (< 1) the draws")
    top_k: int | None = Field(None, ge=0, le=1 << 31, description="Draw from the k likeliest tokens; 0 is all")
    top_p: float | None = Field(None, gt=0, le=1, description="Draw from the likeliest tokens that sum up to this")
    priority: Priority = Field("normal", description="Who is served first; waiting raises it")
    deadline: float | None = Field(None, gt=0, description="Seconds from acceptance after which the job fails")


class GenerationRequest(DrawingOptions):
    """Limits that depend on a model or a setting are checked later, with the same error shape."""

    prompt: str = Field(description="What the picture shows")
    model: str | None = Field(None, max_length=200, description="A name from GET /v1/models, or the default one")
    n: int = Field(1, ge=1, description="Images to make: same seed, image index 0 to n-1")
    order: str | Positions | None = Field(None, description="An order's name, or a permutation of all grid positions")
    previews: bool = Field(True, description="Whether to send `preview` events")


class EditParams(Sent):
    """How the source picture of a job enters it; the picture itself is stored beside the job.

    `inpaint` paints anew what the mask opens, without a trace of what was there. `vary` keeps a share of it. `outpaint`
    lays the source on the canvas and paints around it.
    """

    mode: Literal["inpaint", "vary", "outpaint"]
    offset: tuple[int, int] = (0, 0)  # pixels down and right, of the source's corner on the canvas; outpaint only
    strength: float = 1.0  # share of the masked tokens that is drawn anew; vary only
    feather: int = 0  # pixels over which the edge of the mask fades
    num_kept: int = 0  # tokens of the source that stay


class GenerationParams(Sent):
    """A request with every default filled in and checked against the model; what a job carries. An empty prompt is
    none: a picture is varied without one."""

    model: str
    prompt: str
    seed: int
    n: int
    order: str | tuple[int, ...]
    steps: int
    group_sizes: str
    guidance: float
    temperature: float
    top_k: int
    top_p: float
    entropy_bound: float = DEFAULT_ENTROPY_BOUND  # nats; of adaptive groups
    candidates: int = DEFAULT_CANDIDATES  # of a shortlist
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    guidance_schedule: str = "constant"
    previews: bool = True
    priority: Priority = "normal"
    deadline: float | None = None  # seconds from acceptance
    partial_images: int = 0  # `partial` events of each image, spread evenly over its steps
    edit: EditParams | None = None
    model_hash: str = ""

    @property
    def rows_per_image(self) -> int:
        """Engine rows of one image: a guided one also runs the unconditional branch."""
        return 1 if self.guidance == 1 else 2


class Failure(Sent):
    """Why a job failed: the same words as in an HTTP error."""

    code: str
    message: str
    field: str | None = None


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
    timings: Timings
    images: tuple[ImageLink, ...] = ()
    retry_of: Annotated[str | None, Field(description="The dead job that this one repeats")] = None
    error: Failure | None = None
    url: str
    stream_url: str
    events_url: str


class GenerationList(Sent):
    """Jobs that wait or run. Place and estimate are null in a list: they are told of one job."""

    object: Literal["list"] = "list"
    data: list[GenerationStatus]
