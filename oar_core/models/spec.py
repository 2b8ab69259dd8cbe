"""Inputs and outputs of a token backbone, and the rules of its attention."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from oar_core.models.condition import Prefix
from oar_core.models.layouts import SequenceLayout, TokenLayout
from oar_wire.options import model_options


class Commits(Enum):
    """Visibility of tokens that are committed after or with a committed token."""

    CAUSAL = "causal"  # itself and the tokens before it
    GROUP = "group"  # also the other tokens of its step


class Queries(Enum):
    """Visibility of a queried position beside the committed tokens."""

    ALONE = "alone"  # nothing
    GROUP = "group"  # the other positions of its step
    EARLIER = "earlier"  # the positions of its step that come before it
    NEXT = "next"  # nothing, and it is no choice: what is answered is what follows the last commit


class Unconditional(Enum):
    """The alternative that guidance steers away from, beside a condition."""

    FIXED = "fixed"  # one prefix, whatever the condition is
    LAST = "last"  # of that prefix, the last ids: as many as the condition is long
    PADDED = "padded"  # of a prefix of three ids, the second one so often that both are of the same length


class GuidanceShare(Enum):
    """The share of a picture at which a growing guidance is read for the positions of a step."""

    START = "start"  # the positions that were decoded before the step
    END = "end"  # those and the step's own
    RANK = "rank"  # of each position, those of lower rank

    def of(self, start: int, end: int, length: int) -> tuple[float, ...]:
        """The share at each rank of a step that decodes the ranks from `start` to `end` - 1 of a picture of `length`;
        one for all, unless it is by rank."""
        ranks = {GuidanceShare.START: (start,), GuidanceShare.END: (end,), GuidanceShare.RANK: range(start, end)}
        return tuple(rank / length for rank in ranks[self])


@dataclass(frozen=True)
class BackboneSpec:
    """Inputs and outputs of a backbone, and the rules of its attention."""

    layout: TokenLayout
    vocab_size: int
    condition_vocab: int  # ids of conditions are below
    max_condition: int  # tokens of a condition prefix
    commits: Commits = Commits.CAUSAL
    queries: Queries = Queries.ALONE
    feature_width: int = 0  # of the vectors that a condition may consist of in place of ids; 0: it has ids
    unconditional: Unconditional = Unconditional.FIXED
    guidance_share: GuidanceShare = GuidanceShare.START
    # Group sizes of the network's authors, of so many steps over so many positions: None where they name none for them.
    published_groups: Callable[[int, int], tuple[int, ...] | None] | None = None

    @property
    def num_tokens(self) -> int:
        return self.layout.num_tokens

    @property
    def grid(self) -> tuple[int, int]:
        return self.layout.shape

    @property
    def has_free_groups(self) -> bool:
        """Tells whether logits depend on the committed tokens in their order alone, however they were grouped into
        steps.

        Where they do, a picture may be resumed from its tokens alone; elsewhere its groups are repeated.
        """
        return self.has_free_commits and self.queries in (Queries.ALONE, Queries.NEXT)

    @property
    def has_free_commits(self) -> bool:
        """Tells whether what a committed token leaves in the cache does not depend on which others came with it."""
        return self.commits is Commits.CAUSAL

    @property
    def options(self) -> tuple[str, ...]:
        """The options of a drawing that mean something to this family."""
        return tuple(option.name for option in model_options())

    @property
    def can_edit(self) -> bool:
        """Tells whether a picture can be given in part."""
        return self.layout.can_edit and self.has_free_order

    @property
    def can_vary(self) -> bool:
        """Tells whether a picture like a given one can be drawn: from a part of its tokens, or from the first ones."""
        return self.can_edit or isinstance(self.layout, SequenceLayout)

    @property
    def can_revise(self) -> bool:
        """Tells whether any tokens may be dropped and drawn again given all others."""
        return self.can_ask_all

    @property
    def can_ask_all(self) -> bool:
        """Tells whether all remaining positions can be scored in one pass without a change of what each answers."""
        return self.queries is Queries.ALONE

    @property
    def has_free_order(self) -> bool:
        """Tells whether any position can be asked at any time.

        Where it cannot, pictures are written in raster order, in steps of `fixed_sizes`, and none of their tokens can
        be given but the first ones, as those of an earlier run.
        """
        return self.queries is not Queries.NEXT

    @property
    def fixed_sizes(self) -> tuple[int, ...] | None:
        """Number of positions that each step decodes, where it can be no other: the groups of a sequence, or one
        position a step."""
        if self.has_free_order:
            return None
        return self.layout.groups if isinstance(self.layout, SequenceLayout) else (1,) * self.num_tokens

    def unconditional_beside(self, condition: Prefix, unconditional_ids: tuple[int, ...]) -> tuple[int, ...]:
        """The prefix that guidance steers away from where a picture has this condition."""
        if self.unconditional is Unconditional.LAST:
            return unconditional_ids[-len(condition) :]
        if self.unconditional is Unconditional.PADDED:
            first, pad, last = unconditional_ids
            return first, *(pad,) * max(0, len(condition) - 2), last
        return unconditional_ids
