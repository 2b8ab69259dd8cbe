"""What a worker publishes about a model, so that the API can check requests and answer `/v1/models` alone."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from oar_wire.base import Sent
from oar_wire.options import Option, Plan, Sampling, model_options, plain


class GenerationDefaults(Sampling, Plan):
    """What a request that does not say otherwise gets."""


class ModelInfo(Sent):
    name: str
    grid: tuple[int, int]  # h, w in tokens
    image_size: tuple[int, int]  # Y, X in pixels
    orders: tuple[str, ...]
    group_sizes: tuple[str, ...]
    defaults: GenerationDefaults
    condition: Literal["text", "class", "features", "none"] = "text"  # what pictures are made from
    max_prompt_tokens: int = 0  # that a prompt may have by the model's text tokenizer
    can_revise: bool = True  # whether it can draw tokens again given all others
    has_vocabulary: bool = False  # whether the words that it was trained on are published beside it
    example_prompts: tuple[str, ...] = ()
    pixel_art: bool = False  # looks right when it is enlarged pixel by pixel
    model_hash: str = ""
    created: int = 0  # Unix seconds
    licence: str = ""  # of the weights

    @property
    def size(self) -> str:
        """Width x height in pixels, as a request names it."""
        height, width = self.image_size
        return f"{width}x{height}"

    @property
    def num_tokens(self) -> int:
        return self.grid[0] * self.grid[1]


class OptionEntry(Sent):
    """An option of a drawing, as this model has it: enough for a form."""

    name: str
    group: Literal["plan", "sampling"]
    label: str
    description: str
    kind: Literal["integer", "number", "text", "order"]
    is_pair: bool = Field(False, description="Whether it has two values, the lesser first")
    default: Any
    minimum: float | None = None
    above: float | None = Field(None, description="Values are greater than this")
    maximum: float | None = None
    choices: tuple[str, ...] = Field((), description="All values that there are; none: whatever is in the bounds")
    usual: tuple[float, float, float] | None = Field(None, description="A slider's least, most and step")
    unit: str = ""
    only: tuple[str, str] | None = Field(None, description="An option and its value, without which it does nothing")


class ModelEntry(Sent):
    """OpenAI's `id`, `object`, `created` and `owned_by`, then what this server's models can do."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "oar"
    is_default: bool
    aliases: tuple[str, ...] = ()  # other names by which requests may call it
    num_tokens: int
    sizes: tuple[str, ...]  # width x height in pixels
    grid: tuple[int, int]
    image_size: tuple[int, int]
    orders: tuple[str, ...]
    group_sizes: tuple[str, ...]
    defaults: GenerationDefaults
    options: tuple[OptionEntry, ...] = Field((), description="What a request may set, each with its bounds and default")
    max_prompt_tokens: int
    example_prompts: tuple[str, ...]
    pixel_art: bool
    model_hash: str
    licence: str
    workers: Annotated[int, Field(description="Live workers that take its jobs; with 0, submits are refused with 503")]


class ModelList(Sent):
    object: Literal["list"] = "list"
    data: list[ModelEntry]


class WorkerInfo(Sent):
    """A worker's heartbeat."""

    name: str
    models: tuple[str, ...]
    slots: int
    step_seconds: float = 0.0  # smoothed time of one engine step; 0 before the first
    # Seconds of a step whatever it does, and for each row that shares it, fitted to its steps; 0 before the first.
    base_seconds: float = 0.0
    row_seconds: float = 0.0
    picture_seconds: float = 0.0  # smoothed time from a picture's last step to its pixels
    is_draining: bool = False  # it takes no more jobs
    beats: int = 0  # heartbeats so far: one that stands still is dead, whatever Redis' clock says
    lease_seconds: float = 0.0  # that it may stand still; 0: this worker does not count them


def describe_options(info: ModelInfo) -> tuple[OptionEntry, ...]:
    """The options of a drawing with this model's choices, bounds and defaults."""
    choices = {"order": info.orders, "group_sizes": info.group_sizes}
    most: dict[str, float] = {"steps": info.num_tokens}
    return tuple(
        OptionEntry(
            name=option.name,
            group=option.group,
            label=option.label,
            description=option.about.sentence,
            kind=_KINDS.get(_value_kind(option), "order"),
            is_pair=option.is_pair,
            default=getattr(info.defaults, option.name),
            minimum=option.about.ge,
            above=option.about.gt,
            maximum=most.get(option.name, option.about.le),
            choices=choices.get(option.name, option.choices),
            usual=option.about.usual,
            unit=option.about.unit,
            only=option.about.only,
        )
        for option in model_options()
        if option.group != "job"
        and (info.condition == "text" or not option.about.is_prompt)
        and (info.can_revise or option.name != "revise")
    )


_KINDS: dict[Any, Literal["integer", "number", "text"]] = {int: "integer", float: "number", str: "text"}


def _value_kind(option: Option) -> Any:
    return get_args(option.kind)[0] if option.is_pair else plain(option.kind)
