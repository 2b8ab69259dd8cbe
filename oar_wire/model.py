"""Facts that a worker publishes about a model, so that the API can check requests and answer `/v1/models` alone."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import Field

from oar_wire.base import Sent
from oar_wire.errors import UnsupportedByModel
from oar_wire.options import (
    CHOSEN,
    FITTED,
    WAYS,
    BadOption,
    ConditionKind,
    Option,
    PlanOptions,
    SamplingOptions,
    model_options,
    plain,
)
from oar_wire.outputs import OutputKind

GroupTables = Annotated[
    dict[str, dict[int, tuple[int, ...]]],
    Field(description="Its own group sizes, by order and number of steps; a request that names none gets them"),
]


class GenerationDefaults(SamplingOptions, PlanOptions):
    """Defaults of a request."""


class LayoutInfo(Sent):
    """The layout of a model's outputs: a `grid` of tokens, a `sequence` of groups of tokens from coarse to fine, or
    `frames` of values."""

    kind: Literal["grid", "sequence", "frames"]
    shape: tuple[int, ...] = Field(
        description="Height and width of a grid; the sizes of a sequence's groups; frames, height and width"
    )
    channels: Annotated[int, Field(description="Values at each place of a frame; 0 for tokens")] = 0


class ModelInfo(Sent):
    name: str
    grid: tuple[int, int]  # h, w in tokens, or in places of a frame
    image_size: tuple[int, int]  # Y, X in pixels
    orders: tuple[str, ...]
    chosen_orders: tuple[str, ...] = ()  # those of them that it chooses step by step
    group_sizes: tuple[str, ...]
    defaults: GenerationDefaults
    group_tables: GroupTables = Field(default_factory=dict[str, dict[int, tuple[int, ...]]])
    condition: ConditionKind = "text"  # what pictures are made from
    has_fixed_steps: bool = False  # one for each position or group, and no other number
    max_prompt_tokens: int = 0  # that a prompt may have by the model's text tokenizer
    can_revise: bool = True  # whether it can draw tokens again given all others
    has_vocabulary: bool = False  # whether the words that it was trained on are published beside it
    example_prompts: tuple[str, ...] = ()
    pixel_art: bool = False  # looks right when it is enlarged pixel by pixel
    model_hash: str = ""
    created: int = 0  # Unix seconds
    licence: str = ""  # of the weights
    # What it may be asked for. Cards of workers without these words are of models that make pictures of a grid.
    layout: LayoutInfo | None = None
    outputs: tuple[OutputKind, ...] = ("image",)
    accepts: tuple[str, ...] | None = None  # options of a drawing that mean something to it; None: all
    can_edit: bool = True
    can_vary: bool = False  # by strength; where parts cannot be edited, whole pictures
    has_previews: bool = True

    @property
    def known_layout(self) -> LayoutInfo:
        return self.layout or LayoutInfo(kind="grid", shape=self.grid)

    @property
    def num_frames(self) -> int:
        """Frames of a video; 0 for a model that makes pictures."""
        layout = self.known_layout
        return layout.shape[0] if layout.kind == "frames" else 0

    @property
    def fixed_sizes(self) -> tuple[int, ...] | None:
        """Number of positions that each step decodes, where it can be no other number."""
        if not self.has_fixed_steps:
            return None
        return self.known_layout.shape if self.is_sequence else (1,) * self.num_tokens

    @property
    def is_sequence(self) -> bool:
        return self.known_layout.kind == "sequence"

    @property
    def options(self) -> tuple[Option, ...]:
        """The options of a drawing that it takes."""
        return tuple(
            option
            for option in model_options()
            if (self.accepts is None or option.name in self.accepts)
            and (self.condition == "text" or not option.about.is_prompt)
            and (self.condition != "none" or not option.about.needs_condition)
        )

    def check_takes(self, asked: object) -> None:
        """Raises BadOption for an option that means nothing to this model, and where no request can carry what it
        reads."""
        if self.condition == "features":
            message = f"{self.name} reads features of captions, which the library takes and no request can carry"
            raise BadOption(message, kind=UnsupportedByModel, field="model")
        taken = {option.name for option in self.options}
        for option in model_options():
            if option.name in taken or getattr(asked, option.name) is None:
                continue
            if option.about.is_prompt and self.condition != "text":
                raise option.refuse(f"{self.name} reads no text, so that {option.name} has no place in it")
            if option.about.needs_condition and self.condition == "none":
                raise option.refuse(f"{self.name} draws without a condition, and {option.name} means nothing to it")
            words = ", ".join(sorted(taken)) or "none"
            raise option.refuse(f"{self.name} {self._makes}, and {option.name} means nothing to it; it takes {words}")

    def check_edits(self, *, is_variation: bool = False) -> None:
        """Raises BadOption where it cannot begin with a picture; `is_variation`: a whole one, by strength."""
        if self.can_edit or (self.can_vary and is_variation):
            return
        message = f"{self.name} {self._makes}, and can keep no part of one that is given"
        if self.can_vary:
            message += "; it varies whole pictures: send strength, and neither a mask nor an offset"
        raise BadOption(message, kind=UnsupportedByModel, field="model")

    def check_makes(self, kind: OutputKind) -> None:
        """Raises BadOption where it makes no outputs of a kind."""
        if kind not in self.outputs:
            message = f"{self.name} {self._makes}; POST /v1/generations takes it"
            raise BadOption(message, kind=UnsupportedByModel, field="model")

    @property
    def _makes(self) -> str:
        if self.has_fixed_steps and not self.is_sequence:
            return "writes its pictures row by row from the first position on"
        kind = self.known_layout.kind
        return (
            "makes frames"
            if kind == "frames"
            else f"writes pictures {WAYS[kind]}"
            if self.is_sequence
            else "makes pictures"
        )

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
    only: tuple[str, ...] | None = Field(
        None, description="Another option, then its values: with any other value of it this one does nothing"
    )


class ModelEntry(Sent):
    """OpenAI's `id`, `object`, `created` and `owned_by`, then what this server's models can do."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "oar"
    is_default: bool
    aliases: tuple[str, ...] = ()  # other names by which requests may call it
    layout: LayoutInfo
    outputs: tuple[OutputKind, ...] = Field(description="The kinds of outputs that it makes")
    can_edit: bool = Field(description="Whether edits, variations and outpaints can be asked of it")
    can_vary: bool = Field(False, description="Whether variations of whole pictures can be asked of it")
    has_previews: bool = Field(description="Whether it shows half-done pictures on the way")
    num_tokens: int
    sizes: tuple[str, ...]  # width x height in pixels
    grid: tuple[int, int]
    image_size: tuple[int, int]
    orders: tuple[str, ...]
    group_sizes: tuple[str, ...]
    group_tables: GroupTables = Field(default_factory=dict[str, dict[int, tuple[int, ...]]])
    defaults: GenerationDefaults
    options: tuple[OptionEntry, ...] = Field((), description="What a request may set, each with its bounds and default")
    has_fixed_steps: bool = Field(False, description="Whether steps are one a position or group, and no other number")
    max_prompt_tokens: int
    condition: Annotated[ConditionKind, Field(description="What pictures are made from; `none`: no prompt")] = "text"
    example_prompts: tuple[str, ...]
    pixel_art: bool
    model_hash: str
    licence: str
    workers: Annotated[int, Field(description="Live workers that take its jobs; with 0, submits are refused with 503")]


class ModelList(Sent):
    object: Literal["list"] = "list"
    data: list[ModelEntry]


class ClassList(Sent):
    """The classes of a model, by number; names of one class are parted by commas."""

    object: Literal["list"] = "list"
    data: tuple[str, ...]


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
    beats: int = 0  # raised by each heartbeat: a worker whose count stands still is dead, whatever Redis' clock says
    lease_seconds: float = 0.0  # that it may stand still; 0: this worker does not count them


def describe_options(info: ModelInfo) -> tuple[OptionEntry, ...]:
    """The options of a drawing with this model's choices, bounds and defaults."""
    choices = {"order": info.orders, "group_sizes": info.group_sizes}
    fixed = info.fixed_sizes
    most: dict[str, float] = {"steps": info.num_tokens if fixed is None else len(fixed)}
    least: dict[str, float] = {} if fixed is None else {"steps": len(fixed)}
    usual = {"group_sizes": FITTED} if info.group_tables else {}
    return tuple(
        OptionEntry(
            name=option.name,
            group=cast("Literal['plan', 'sampling']", option.group),
            label=option.label,
            description=option.about.sentence,
            kind=_form_kind(option),
            is_pair=option.is_pair,
            default=usual.get(option.name) or getattr(info.defaults, option.name),
            minimum=least.get(option.name, option.about.ge),
            above=option.about.gt,
            maximum=most.get(option.name, option.about.le),
            choices=choices.get(option.name, option.choices),
            usual=option.about.usual,
            unit=option.about.unit,
            only=_only(option, info) or None,
        )
        for option in info.options
        if (info.can_revise or option.name != "revise") and _can_act(_only(option, info), choices)
    )


def _only(option: Option, info: ModelInfo) -> tuple[str, ...]:
    """Another option and its values with which this one does something; none: with all."""
    parts = [info.chosen_orders if word == CHOSEN else (word,) for word in option.about.only]
    return tuple(word for part in parts for word in part)


def _can_act(only: tuple[str, ...], choices: Mapping[str, tuple[str, ...]]) -> bool:
    """Tells whether the model has a choice with which an option does something that does so `only` with some."""
    other, *values = only or ("",)
    return other not in choices or not set(values).isdisjoint(choices[other])


_KINDS: dict[Any, Literal["integer", "number", "text"]] = {int: "integer", float: "number", str: "text"}


def _form_kind(option: Option) -> Literal["integer", "number", "text", "order"]:
    """Group sizes are chosen by name in a form."""
    kind = get_args(option.kind)[0] if option.is_pair else plain(option.kind)
    return "order" if option.name == "order" else _KINDS.get(kind, "text")
