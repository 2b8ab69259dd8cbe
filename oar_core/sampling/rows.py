"""One picture's part in a step, and its outcome."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from oar_core.order.plan import DEFAULT_CANDIDATES
from oar_core.order.rules import OrderRule
from oar_core.sampling.sampler import SamplingParams


@dataclass(frozen=True)
class Slots:
    """The cache slots of one picture; the second one only under guidance."""

    conditional: int
    unconditional: int | None = None

    @property
    def all(self) -> tuple[int, ...]:
        return (self.conditional,) if self.unconditional is None else (self.conditional, self.unconditional)


@dataclass(frozen=True)
class DecodeRow:
    """One picture's part in this step: commit tokens to its slots, then decode `take` of the queried positions, or,
    under an entropy bound, as many from `take` to `most` as are safe together.

    A row without a query commits alone: a chunk of a prefill.
    """

    slots: Slots
    commit_positions: Sequence[int]
    commit_token_ids: Sequence[int]
    query: Sequence[int]
    take: int
    rule: OrderRule  # picks the group out of the query, which lists positions in ascending order unless FIXED
    sampling: SamplingParams
    noise_key: int
    most: int | None = None  # None: `take`
    entropy_bound: float | None = None  # nats
    candidates: int = DEFAULT_CANDIDATES  # of a shortlist, for each position that the group may hold
    held: tuple[int, ...] = (0, 0)  # how many of the commits, from the first, each slot has already
    begun: Sequence[int] = ()  # positions of the group that were decoded before an interruption
    repulsion: int = 1  # cells that the positions of a chosen group keep from each other
    of_rule: Mapping[str, float] = field(default_factory=dict[str, float])  # options that the rule's decider reads
    has_surprises: bool = False  # whether it is to be told how surprising its tokens are
    scales: Sequence[float] | None = None  # the guidance of each queried position; None: that of `sampling` for all
    # Of the commits, how many each token sees, from the first, for families whose tokens see their group.
    commit_seen: Sequence[int] | None = None

    @property
    def limit(self) -> int:
        """Number of positions that the group may hold."""
        return self.take if self.most is None else self.most

    @property
    def num_asked(self) -> int:
        """Number of positions that the backbone is asked for."""
        return self.rule.num_asked(len(self.query), self.limit, len(self.begun), self.candidates)


@dataclass(frozen=True)
class DecodedGroup:
    """Tokens of one picture in decode order. See `oar_core.sampling.progress.Patch` for what a confidence is."""

    positions: tuple[int, ...]
    token_ids: tuple[int, ...]
    confidences: tuple[float, ...]
    surprises: tuple[float, ...] = ()  # nats; none where no row of the step asks
