"""The options of a drawing: each is declared once, with its kind, default, bounds, sentence and group.

What a caller may set follows from here: the fields of HTTP requests and their codes, what a job carries, the defaults
of model cards and recipes, the command line's flags, the client's types, the studio's form, the tables of the
documents, and what the library refuses. A new option is one annotated field of `PlanOptions` or `SamplingOptions`, and
whatever acts on it.
"""

import math
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from types import NoneType
from typing import Annotated, Any, Final, Literal, cast, get_args, get_origin

from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

from oar_wire.base import Accepted, Sent
from oar_wire.errors import (
    InvalidField,
    InvalidOrder,
    InvalidPrompt,
    InvalidRequest,
    InvalidSampling,
    InvalidSteps,
    PromptTooLong,
)

Group = Literal["plan", "sampling", "job"]
Priority = Literal["low", "normal", "high"]
GuidanceSchedule = Literal["constant", "linear", "cosine"]

FITTED: Final = "fitted"  # group sizes: those of the model's own table
MAX_SEED = 2**63 - 1
MAX_POSITIONS = 1 << 14  # of a grid: 128 x 128
MAX_NAME = 200  # characters
DEFAULT_ENTROPY_BOUND: Final = 6.0  # nats; a picture of 64 tokens of 10 bits holds 100 to 200
DEFAULT_CANDIDATES: Final = 4
CHOSEN: Final = "chosen"  # in `About.only`: every order that the model chooses step by step
REVISION_STEPS: Final = 2  # in which a revision draws what it dropped
CANNOT_REVISE: Final = "this model cannot draw tokens again given all others"

# The first bad position is enough: each would become an error of its own.
Positions = Annotated[list[int], Field(max_length=MAX_POSITIONS, fail_fast=True)]
Sizes = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1, max_length=MAX_POSITIONS, fail_fast=True)]
Share = Annotated[float, Field(ge=0, le=1)]
ConditionKind = Literal["text", "class", "features", "none"]  # what a model makes its pictures from
SizeTables = Mapping[str, Mapping[int, tuple[int, ...]]]  # a model's own sizes: order -> number of steps -> sizes
Interval = Annotated[list[Share], Field(min_length=2, max_length=2)]


@dataclass(frozen=True)
class About:
    """Facts in an option's annotation beside its kind and default. Numbers are bounds where they are given."""

    sentence: str
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    max_length: int | None = None  # characters
    asked: Any = None  # its kind in the JSON of a request, where that is not its own
    label: str = ""  # in a form; its name in words if empty
    usual: tuple[float, float, float] | None = None  # a slider's least, most and step
    unit: Literal["", "nats", "share"] = ""
    only: tuple[str, ...] = ()  # another option and its values with which this one does something; none: with all
    error: type[InvalidRequest] | None = None  # of a complaint; the group's if none
    complaint: str = ""  # about a value of another kind, in place of the validator's words
    is_prompt: bool = False  # whether the model reads it as text
    needs_condition: bool = False  # whether it does nothing in a model without conditions

    @property
    def constraints(self) -> dict[str, Any]:
        """Arguments of pydantic's `Field`."""
        given = {name: getattr(self, name) for name in ("ge", "gt", "le", "max_length")}
        return {name: value for name, value in given.items() if value is not None}

    @cached_property
    def _ends(self) -> tuple[float, float, float]:
        """The least value, the one that all are above, and the greatest; infinity is none of them."""
        least = -sys.float_info.max if self.ge is None else self.ge
        above = -math.inf if self.gt is None else self.gt
        return least, above, sys.float_info.max if self.le is None else self.le

    def holds(self, value: float) -> bool:
        """Tells whether a number is finite and within the bounds."""
        least, above, most = self._ends
        return least <= value <= most and value > above

    @property
    def range(self) -> str:
        """The bounds in words."""
        if self.gt is not None:
            return f"it lies above {self.gt:g}" + ("" if self.le is None else f" and up to {self.le:g}")
        if self.le is not None:
            return f"it lies between {self.ge or 0:g} and {self.le:g}"
        return "a finite number is needed" if self.ge is None else f"at least {self.ge:g} is needed"


class PlanOptions(Sent):
    """The order in which a picture is decoded, and the number of positions at a time."""

    order: Annotated[
        str | tuple[int, ...],
        About(
            "An order's name, or a permutation of all grid positions",
            asked=str | Positions,
            error=InvalidOrder,
            complaint="order is an order's name or a list of grid positions",
        ),
    ] = "raster"
    steps: Annotated[int, About("Decode steps, at most the number of grid positions", ge=1)] = 16
    group_sizes: Annotated[
        str | tuple[int, ...],
        About(
            "Positions of each step: a schedule's name, `fitted` for the model's own sizes, or a list that sums to all "
            "positions",
            asked=Annotated[str, Field(max_length=MAX_NAME)] | Sizes,
            complaint="group_sizes is a schedule's name or a list of how many positions each step decodes",
        ),
    ] = "cosine"
    entropy_bound: Annotated[
        float,
        About(
            "Nats that an `adaptive` group may lose; other group sizes ignore it",
            ge=0,
            le=10_000,
            usual=(0, 20, 0.5),
            unit="nats",
            only=("group_sizes", "adaptive"),
        ),
    ] = DEFAULT_ENTROPY_BOUND
    candidates: Annotated[
        int,
        About(
            "Positions that the model scores for each position that a step fills; only for order `shortlist`",
            ge=1,
            le=10_000,
            usual=(1, 16, 1),
            only=("order", "shortlist"),
        ),
    ] = DEFAULT_CANDIDATES
    repulsion: Annotated[
        int,
        About(
            "Distance in cells between positions of one step, while there is room; only for orders that the model "
            "chooses and `spaced`; 1 is none",
            ge=1,
            le=128,
            usual=(1, 8, 1),
            only=("order", CHOSEN, "spaced"),
        ),
    ] = 1
    revise: Annotated[
        int,
        About(
            "Number of the most surprising tokens that are drawn again in the whole picture; 0 is none. "
            "Fewer faults, but no exact sample",
            ge=0,
            le=MAX_POSITIONS,
            usual=(0, 16, 1),
        ),
    ] = 0


class SamplingOptions(Sent):
    """Settings with which the tokens of a picture are drawn."""

    guidance: Annotated[
        float, About("Classifier-free guidance; 1 is none", ge=0, le=100, usual=(1, 8, 0.25), needs_condition=True)
    ] = 1.0
    guidance_interval: Annotated[
        tuple[float, float],
        About(
            "First and last share of decoded positions with guidance. Outside it, a step costs half",
            ge=0,
            le=1,
            asked=Interval,
            usual=(0, 1, 0.01),
            unit="share",
            needs_condition=True,
        ),
    ] = (0.0, 1.0)
    guidance_schedule: Annotated[
        str,
        About(
            "How guidance grows from 1 with the share of decoded positions",
            asked=GuidanceSchedule,
            needs_condition=True,
        ),
    ] = "constant"
    negative_prompt: Annotated[
        str | None, About("What guidance steers away from; ignored if guidance is 1", label="Avoid", is_prompt=True)
    ] = None
    temperature: Annotated[
        float, About("Flattens (> 1) or sharpens (< 1) the draws", ge=0, le=100, usual=(0, 2, 0.05))
    ] = 1.0  # fmt: skip
    top_k: Annotated[
        int, About("Draw from the k likeliest tokens; 0 is all", ge=0, le=1 << 31, label="Top-k")
    ] = 0  # fmt: skip
    top_p: Annotated[
        float,
        About(
            "Draw from the likeliest tokens with this probability", gt=0, le=1, label="Top-p", usual=(0.05, 1, 0.01)
        ),
    ] = 1.0  # fmt: skip


class JobOptions(Accepted):
    """Options of a request that no model has a default for."""

    seed: int | None = Field(None, ge=0, le=MAX_SEED, description="Decides every draw; chosen and returned if absent")
    priority: Priority = Field("normal", description="Place in the queue; waiting raises it")
    deadline: float | None = Field(None, gt=0, description="Seconds from acceptance after which the job fails")


_ERRORS: Mapping[Group, type[InvalidRequest]] = {"plan": InvalidSteps, "sampling": InvalidSampling, "job": InvalidField}


@dataclass(frozen=True)
class Option:
    """One declared option."""

    name: str
    group: Group
    kind: Any  # as a job carries it
    default: Any  # of a model that names none
    about: About

    @property
    def asked(self) -> Any:
        """Kind in the JSON of a request."""
        return self.kind if self.about.asked is None else self.about.asked

    @property
    def label(self) -> str:
        return self.about.label or self.name.replace("_", " ").capitalize()

    @property
    def error(self) -> type[InvalidRequest]:
        """The class of a complaint about its value."""
        return self.about.error or _ERRORS[self.group]

    @cached_property
    def choices(self) -> tuple[str, ...]:
        """The values that are all there are; none where a model or a range says it."""
        return get_args(plain(self.asked)) if get_origin(plain(self.asked)) is Literal else ()

    @cached_property
    def is_pair(self) -> bool:
        return get_origin(self.kind) is tuple and len(get_args(self.kind)) == 2 and ... not in get_args(self.kind)

    def check(self, value: Any) -> None:
        """Refuses what no model serves. Raises BadOption."""
        if self.choices and value not in self.choices:
            raise self.refuse(f"{self.name} {value!r} is not one of {', '.join(self.choices)}")
        if isinstance(value, (int, float)):
            if not self.about.holds(value):
                raise self.refuse(f"{self.name} is {value}; {self.about.range}")
        elif self.is_pair:
            self._check_pair(*value)

    def _check_pair(self, low: float, high: float) -> None:
        if not (self.about.holds(low) and self.about.holds(high)):
            raise self.refuse(f"{self.name} is {low} to {high}; {self.about.range}")
        if not low < high:
            raise self.refuse(f"{self.name} is {low} to {high}; it has to end after it begins")

    def refuse(self, message: str) -> "BadOption":
        return BadOption(message, kind=self.error, field=self.name)


class BadOption(ValueError):
    """A value that cannot be served; `kind` is the error that the server answers with."""

    def __init__(self, message: str, *, kind: type[InvalidRequest], field: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.field = field


def collect(group: Group, declaration: type[BaseModel]) -> Iterator[tuple[str, Option]]:
    """The options that a class declares, by name."""
    for name, field in declaration.model_fields.items():
        about = next((fact for fact in field.metadata if isinstance(fact, About)), None) or _about(field)
        yield name, Option(name, group, field.annotation, field.default, about)


def _about(field: FieldInfo) -> About:
    """Reads them from pydantic's own words."""
    bounds = {
        name: getattr(fact, name) for fact in field.metadata for name in ("ge", "gt", "le") if hasattr(fact, name)
    }
    return About(field.description or "", **bounds)


OPTIONS: dict[str, Option] = {
    **dict(collect("plan", PlanOptions)),
    **dict(collect("sampling", SamplingOptions)),
    **dict(collect("job", JobOptions)),
}


def plain(kind: Any) -> Any:
    """A kind without its annotations and without null."""
    if get_origin(kind) is Annotated:
        return plain(get_args(kind)[0])
    others = [part for part in get_args(kind) if part is not NoneType]
    return plain(others[0]) if len(others) == 1 and NoneType in get_args(kind) else kind


@cache
def model_options() -> tuple[Option, ...]:
    """Options that a model has a default for. All are declared before the first call."""
    return tuple(option for option in OPTIONS.values() if option.group != "job")


@cache
def plan_options() -> tuple[str, ...]:
    """The names of those that say how a picture is decoded."""
    return tuple(option.name for option in model_options() if option.group == "plan")


@cache
def prompt_options() -> tuple[Option, ...]:
    """Options that a model reads as text."""
    return tuple(option for option in model_options() if option.about.is_prompt)


def request_fields() -> dict[str, Any]:
    """Fields of a request for `create_model`: null is the model's default."""
    fields: dict[str, Any] = {}
    for option in model_options():
        bounds = option.about.constraints if option.about.asked is None else {}
        fields[option.name] = (option.asked | None, Field(None, description=option.about.sentence, **bounds))
    return fields


def settle(asked: Any, defaults: Any, tables: SizeTables | None = None) -> dict[str, Any]:
    """Every option of a request with the model's default where it says nothing. Raises BadOption."""
    settled: dict[str, Any] = {}
    for option in model_options():
        value = getattr(asked, option.name)
        value = getattr(defaults, option.name) if value is None else value
        settled[option.name] = tuple(cast("list[Any]", value)) if isinstance(value, list) else value
        option.check(settled[option.name])
    return settled | _settle_sizes(asked, settled, defaults.group_sizes, tables or {})


def _settle_sizes(asked: Any, settled: Mapping[str, Any], usual: str, tables: SizeTables) -> dict[str, Any]:
    """Group sizes and steps, which agree where the sizes are a list. Raises BadOption."""
    sizes: str | tuple[int, ...] = settled["group_sizes"]
    steps: int = settled["steps"]
    if asked.group_sizes is None or sizes == FITTED:
        sizes = fitted_sizes(tables, settled["order"], steps) or usual
    if not isinstance(sizes, str):
        check_number_of_sizes(sizes, asked.steps)
        steps = len(sizes)
    return {"group_sizes": sizes, "steps": steps}


def fitted_sizes(tables: SizeTables, order: str | Sequence[int], steps: int | None) -> tuple[int, ...] | None:
    """The model's own group sizes of an order in so many steps; None where it has none."""
    return tables.get(order, {}).get(steps or 0) if isinstance(order, str) else None


def check_all(values: Mapping[str, Any]) -> None:
    """Checks those of the values that are options. Raises BadOption."""
    for name, value in values.items():
        option = OPTIONS.get(name)
        if option is not None and value is not None:
            option.check(value)


def take(values: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Takes the values that are options of these names; null is left out, and lists become tuples."""
    found = {name: values[name] for name in names if name in OPTIONS and values.get(name) is not None}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}  # pyright: ignore[reportUnknownArgumentType]


# what depends on the model


def check_name(field: str, name: str, known: Collection[str]) -> None:
    """Raises BadOption for a name that is not known."""
    if name not in known:
        raise OPTIONS[field].refuse(f"{field} {name[:80]!r} is not one of {', '.join(known)}")


def check_order(order: str | Sequence[int], known: Collection[str], num_tokens: int | None = None) -> None:
    """Raises BadOption for an unknown name, or positions that are no permutation of the grid's."""
    if isinstance(order, str):
        check_name("order", order, known)
        return
    length = len(order) if num_tokens is None else num_tokens
    if len(order) != length:
        raise OPTIONS["order"].refuse(f"order names {len(order)} positions; this model has {length}")
    if not length or sorted(order) != list(range(length)):
        raise OPTIONS["order"].refuse(
            f"order is no permutation: it has to name each position from 0 to {length - 1} once"
        )


# How a model of each layout writes its pictures where it has one order.
WAYS = {"grid": "row by row", "sequence": "from coarse to fine"}


def check_raster(order: str | Sequence[int], num_tokens: int, layout: str = "grid") -> None:
    """Raises BadOption for any order but raster, by name or as positions: of a model that writes so alone."""
    if order == "raster" or (not isinstance(order, str) and list(order) == list(range(num_tokens))):
        return
    name = order if isinstance(order, str) else "a permutation"
    raise OPTIONS["order"].refuse(f"order is {name}; this model writes {WAYS[layout]}, in order raster alone")


def check_sizes(sizes: str | Sequence[int], known: Collection[str], num_tokens: int | None = None) -> None:
    """Raises BadOption for an unknown name, or sizes that do not sum to the number of positions."""
    if isinstance(sizes, str):
        check_name("group_sizes", sizes, known)
        return
    if not sizes or min(sizes) < 1:
        raise OPTIONS["group_sizes"].refuse("each step of group_sizes decodes at least 1 position")
    if num_tokens is not None and sum(sizes) != num_tokens:
        raise OPTIONS["group_sizes"].refuse(f"group_sizes sums to {sum(sizes)}; this model has {num_tokens} positions")


def check_number_of_sizes(sizes: Sequence[int], steps: int | None) -> None:
    """Raises BadOption where another number of steps is asked for than there are sizes."""
    if steps is not None and steps != len(sizes):
        message = f"group_sizes lists {len(sizes)} steps, and steps is {steps}: give one of them"
        raise OPTIONS["group_sizes"].refuse(message)


def check_steps(steps: int, num_tokens: int, *, fixed: Sequence[int] | None = None) -> None:
    """Raises BadOption for fewer than one step, or more than one a position; where the sizes of the steps are fixed,
    for any other number of them."""
    if fixed is not None and steps != len(fixed):
        message = f"steps is {steps}; this model writes {_each_step(fixed)}, which is {len(fixed)} steps"
        raise OPTIONS["steps"].refuse(message)
    if not 1 <= steps <= num_tokens:
        raise OPTIONS["steps"].refuse(f"steps is {steps}; this model takes 1 to {num_tokens}")


def check_fixed_sizes(sizes: str | Sequence[int], fixed: Sequence[int] | None) -> None:
    """Raises BadOption for a list of other sizes than those that are fixed."""
    if fixed is not None and not isinstance(sizes, str) and tuple(sizes) != tuple(fixed):
        message = f"group_sizes has {len(sizes)} steps of its own; this model writes {_each_step(fixed)}"
        raise OPTIONS["group_sizes"].refuse(message)


def _each_step(fixed: Sequence[int]) -> str:
    return "one position a step" if max(fixed) == 1 else "one group a step"


def check_revise(revise: int, *, can_revise: bool) -> None:
    """Raises BadOption for a revision by a model that cannot."""
    if revise and not can_revise:
        raise OPTIONS["revise"].refuse(f"revise is {revise}; {CANNOT_REVISE}")


def prompts_of(values: Any) -> dict[str, str]:
    """Texts that a model is to read, by field; options that say nothing are left out."""
    others = {option.name: getattr(values, option.name) for option in prompt_options()}
    return {"prompt": values.prompt, **{name: text for name, text in others.items() if text}}


def check_prompt(prompt: str) -> None:
    """Raises BadOption for an empty prompt."""
    if not prompt.strip():
        raise BadOption("the prompt is empty", kind=InvalidPrompt, field="prompt")


def check_prompt_length(prompt: str, most: int, field: str = "prompt") -> None:
    """Raises BadOption for more characters than are read."""
    if len(prompt) > most:
        message = f"the {_spoken(field)} has {len(prompt)} characters; the limit is {most}"
        raise BadOption(message, kind=PromptTooLong, field=field)


def check_prompt_tokens(count: int, most: int, reader: str = "this model", field: str = "prompt") -> None:
    """Raises BadOption for more tokens than a model reads, its start token not counted."""
    if count > most:
        message = f"the {_spoken(field)} has {count} tokens; {reader} reads {most}"
        raise BadOption(message, kind=PromptTooLong, field=field)


def _spoken(field: str) -> str:
    return field.replace("_", " ")
