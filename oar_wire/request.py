"""`POST /v1/generations`: what a request says."""

from typing import Annotated, Literal

from pydantic import Field

from oar_wire.base import Accepted

MAX_SEED = 2**63 - 1
MAX_ENTROPY_BOUND = 10_000  # nats
MAX_CANDIDATES = 10_000
Priority = Literal["low", "normal", "high"]
GuidanceSchedule = Literal["constant", "linear", "cosine"]
Share = Annotated[float, Field(ge=0, le=1)]


class DrawingOptions(Accepted):
    """What every way to ask for pictures has in common; null is the model's default."""

    seed: int | None = Field(None, ge=0, le=MAX_SEED, description="Decides every draw; chosen and returned if absent")
    steps: int | None = Field(None, ge=1, description="Decode steps, at most the number of grid positions")
    group_sizes: str | None = Field(None, description="How many positions each step decodes, by a schedule's name")
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
    order: str | list[int] | None = Field(None, description="An order's name, or a permutation of all grid positions")
    previews: bool = Field(True, description="Whether to send `preview` events")
