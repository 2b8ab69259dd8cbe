"""Plans: in which order an image is decoded, and how many positions at a time."""

import math
from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, Self

from oar_core.errors import OrderError, StepsError, check_options, request_error
from oar_core.order.paths import PATHS, Grid, Order
from oar_core.order.rules import RULES
from oar_core.order.seeded import SEEDED, SeededPicture
from oar_wire.edit import edit_steps
from oar_wire.options import (
    DEFAULT_CANDIDATES,
    DEFAULT_ENTROPY_BOUND,
    BadOption,
    check_number_of_sizes,
    check_order,
    check_sizes,
    check_steps,
    plan_options,
    take,
)

# Chosen step by step: by the model, which is asked about every remaining position, or by its order policy.
POLICY_ORDERS = tuple(name for name, rule in RULES.items() if rule.uses_policy)
CHOSEN_ORDERS = tuple(RULES)
RASTER = "raster"
PROMPTED = "prompted"  # the condition decides: `OrderTree` keeps the orders
ORDERS = (*PATHS, *SEEDED, *CHOSEN_ORDERS, PROMPTED)

# Share of the positions that is decoded after a share t of the steps. Cosine is MaskGIT's (arXiv 2202.04200).
_DECODED_SHARES: dict[str, Callable[[float], float]] = {
    "cosine": lambda t: 1 - math.cos(math.pi / 2 * t),
    "linear": lambda t: t * t,
    "constant": lambda t: t,
}
SCHEDULES = tuple(_DECODED_SHARES)
CONSTANT, ADAPTIVE = "constant", "adaptive"
PUBLISHED = "published"
GROUP_SIZES = (*SCHEDULES, ADAPTIVE, PUBLISHED)

PublishedGroups = Callable[[int, int], tuple[int, ...] | None]  # of so many steps over so many positions

MIN_LOOKAHEAD = 16  # positions


def group_sizes(kind: str, steps: int, length: int) -> tuple[int, ...]:
    """Number of positions that each of `steps` steps decodes: at least 1, never fewer than the step before, sum
    `length`.

    Kinds: `cosine` (few at first and many at the end: unknown share cos(pi/2 t)), `linear` (growing linearly),
    `constant` (as equal as can be). Raises StepsError.
    """
    if kind not in _DECODED_SHARES:
        raise StepsError(f"group_sizes {kind!r} is not one of {', '.join(SCHEDULES)}", field="group_sizes")
    try:
        check_steps(steps, length)
    except BadOption as error:
        raise request_error(error) from error
    share = _DECODED_SHARES[kind]
    return tuple(sorted(_cut([share(step / steps) for step in range(1, steps + 1)], length)))


def shrink_sizes(sizes: Sequence[int], length: int) -> tuple[int, ...]:
    """The same shares of fewer positions: those of an edit that keeps the others. One step for each at most."""
    if len(sizes) > length:
        return (1,) * length
    total = sum(sizes)
    return _cut([end / total for end in accumulate(sizes)], length)


def _cut(shares: Sequence[float], length: int) -> tuple[int, ...]:
    """Groups that end at these shares of the positions, each of at least one."""
    ends = [0]
    for step, share in enumerate(shares, 1):
        wanted = math.floor(length * share + 0.5)
        # At least one position now, and one left for each step to come.
        ends.append(min(max(wanted, ends[-1] + 1), length - (len(shares) - step)))
    return tuple(end - start for start, end in pairwise(ends))


@dataclass(frozen=True)
class PlanSpec:
    """A requested plan; it becomes a plan once the grid, the seed and the given positions are known.

    `order` is a name of ORDERS or a permutation of the positions. `confidence` lets the model choose, step by step,
    where it is surest, before anything is drawn: a factorisation of the model's distribution like every other order.
    `likelihood` is the fidelity mode, and never a default: it draws a token at every remaining position and keeps those
    that the model finds likeliest. To choose among draws biases what is drawn: single pictures are cleaner, and their
    variety is less than that of the model. `distilled` goes by the order policy of a model that has one; `shortlist` is
    `confidence` among the positions that the policy puts first, `candidates` for each that a step fills: 1 leaves the
    choice to the policy, more ask the model for more. `prompted` is the order that the model keeps for the condition
    (`OrderTree`): it is looked up before a picture begins, and nothing is asked for it while the picture is made.

    `steps` is None for one position a step. `group_sizes` is a schedule's name, or how many positions each step
    decodes: then `steps` is their number, and an edit that keeps some positions takes the same shares of the others.
    Where it is `adaptive`, a step takes as many positions as are safe together: the sum of their entropies less the
    greatest, in nats, which bounds what drawing them independently can lose, is at most `entropy_bound`. `steps` is
    then an upper bound, kept by never falling behind the cosine schedule of as many steps. `published` groups are those
    of the authors of a model's family; where they name none for the number of steps and positions, they are `cosine`.

    `repulsion` is how many cells (Chebyshev) the positions of one step keep from each other where the model or the
    order `spaced` chooses them, as long as there is room; 1 is none. `revise` is how many tokens, the most surprising
    ones, are dropped and drawn again when the picture is whole: a biased sampler as well. `of_rule` are the other
    options of a plan, by name: the rule of a chosen order reads them, and nothing else. Raises OrderError and
    StepsError.
    """

    order: str | tuple[int, ...] = "random"
    steps: int | None = None
    group_sizes: str | tuple[int, ...] = "cosine"
    entropy_bound: float = DEFAULT_ENTROPY_BOUND
    candidates: int = DEFAULT_CANDIDATES
    repulsion: int = 1
    revise: int = 0
    of_rule: Mapping[str, float] = field(default_factory=dict[str, float], hash=False)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Makes a spec from options by name. Nulls and options of no plan are left out."""
        names = {item.name for item in fields(cls)}
        given = take(values, plan_options())
        own = {name: value for name, value in given.items() if name in names}
        return cls(**own, of_rule={name: value for name, value in given.items() if name not in names})

    def __post_init__(self) -> None:
        check_options({**vars(self), **self.of_rule})
        try:
            check_order(self.order, ORDERS)
            check_sizes(self.group_sizes, GROUP_SIZES)
            if isinstance(self.group_sizes, tuple):
                check_number_of_sizes(self.group_sizes, self.steps)
                object.__setattr__(self, "steps", len(self.group_sizes))
        except BadOption as error:
            raise request_error(error) from error

    @property
    def is_adaptive(self) -> bool:
        return self.group_sizes == ADAPTIVE

    def with_steps(self, steps: int) -> "PlanSpec":
        """The same plan in another number of steps; a list of sizes that does not fit gives way to the usual
        schedule."""
        has_others = isinstance(self.group_sizes, tuple) and len(self.group_sizes) != steps
        return replace(self, steps=steps, group_sizes=SCHEDULES[0] if has_others else self.group_sizes)

    def check_fits(self, length: int) -> None:
        """Raises OrderError or StepsError where an image of `length` positions cannot be decoded so."""
        try:
            check_order(self.order, ORDERS, length)
            check_sizes(self.group_sizes, GROUP_SIZES, length)
            if self.steps is not None:
                check_steps(self.steps, length)
        except BadOption as error:
            raise request_error(error) from error


class Group(NamedTuple):
    """The positions of ranks `start..end - 1`, decoded together in one step."""

    step: int  # counts from 0
    start: int
    end: int


@dataclass(frozen=True)
class Plan:
    """The decode path of one image over the positions that were not given."""

    order: Order | None  # by rank; None: chosen at each step by the model
    group_ends: tuple[int, ...]  # the last is the number of positions to decode; adaptive groups may end later
    entropy_bound: float | None = None  # of adaptive groups

    @property
    def is_adaptive(self) -> bool:
        return self.entropy_bound is not None

    @property
    def lookahead(self) -> int:
        """Number of next positions that an adaptive step looks at where each costs a query: a quarter of all."""
        return max(MIN_LOOKAHEAD, -(-self.length // 4))

    @property
    def steps(self) -> int:
        return len(self.group_ends)

    @property
    def length(self) -> int:
        return self.group_ends[-1] if self.group_ends else 0

    def group_of(self, rank: int) -> Group:
        """The group that decodes a rank. A rank inside a group is where a picture is that was interrupted there."""
        step = bisect_right(self.group_ends, rank)
        return Group(step, self.group_ends[step - 1] if step else 0, self.group_ends[step])


def make_plan(
    spec: PlanSpec,
    grid: Grid,
    *,
    seed: int,
    image_index: int = 0,
    given: Collection[int] = frozenset(),
    published: PublishedGroups | None = None,
) -> Plan:
    """Lays a spec out over a grid. Ranks and groups count only positions that are not `given` (an edit's kept tokens).

    An edit that leaves fewer positions than `spec.steps` takes one step for each. `published` are the groups of the
    model's family, if it has any. Raises OrderError, StepsError.
    """
    length = grid[0] * grid[1]
    spec.check_fits(length)
    remaining = length - len(set(given))
    if not remaining:
        return Plan(order=(), group_ends=())
    sizes = _sizes(spec, remaining, published)
    order = _fixed_order(spec, SeededPicture(grid, sizes, seed, image_index, given, spec.repulsion))
    return Plan(
        order=None if order is None else tuple(position for position in order if position not in given),
        group_ends=tuple(accumulate(sizes)),
        entropy_bound=spec.entropy_bound if spec.is_adaptive else None,
    )


def _sizes(spec: PlanSpec, length: int, published: PublishedGroups | None) -> tuple[int, ...]:
    if isinstance(spec.group_sizes, tuple):
        return shrink_sizes(spec.group_sizes, length)
    steps = length if spec.steps is None else edit_steps(spec.steps, length)
    found = published(steps, length) if spec.group_sizes == PUBLISHED and published is not None else None
    return found or group_sizes(spec.group_sizes if spec.group_sizes in SCHEDULES else SCHEDULES[0], steps, length)


def _fixed_order(spec: PlanSpec, picture: SeededPicture) -> Order | None:
    """None where the model chooses step by step."""
    order = spec.order
    if not isinstance(order, str):
        return order
    if order in CHOSEN_ORDERS:
        return None
    if order == PROMPTED:
        raise OrderError("order is prompted, and this model keeps no orders for its prompts", field="order")
    return SEEDED[order](picture) if order in SEEDED else PATHS[order](picture.grid)
