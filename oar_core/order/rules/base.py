"""Rules of chosen orders: the queries that they make, and how they choose among the answers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from oar_core.config import OrderScore
from oar_core.order.paths import Grid


@dataclass(frozen=True)
class Asked:
    """The backbone's answers for the candidates of R rows, with what a decider needs to weigh them.

    Lists hold one entry for each candidate, row after row; tables one row for each row, right-padded.
    """

    logits: Float[Tensor, "K V"]  # after guidance
    candidates: Int[Tensor, "R G"]  # positions
    widths: Int[Tensor, "R"]  # how many of a row's candidates there are
    grid: Grid
    order_score: OrderScore
    as_table: Callable[[Float[Tensor, "K"]], Float[Tensor, "R G"]]
    draw: Callable[[], Int[Tensor, "K"]]  # the token that would be drawn at each candidate
    options: Mapping[str, Float[Tensor, "R"]]  # by name, what each row was asked for of the options of its rule


class Decider(ABC):
    """Chooses a group among the candidates whose logits are known: those of the highest scores."""

    looks_at_draws = False  # a biased sampler: it chooses by what was drawn

    @abstractmethod
    def scores(self, asked: Asked) -> Float[Tensor, "R G"]: ...


@dataclass(frozen=True)
class OrderRule:
    """An order that is chosen step by step. The policy may propose what is asked; a decider may choose of it.

    Rules that share a decider are served by one call of it.
    """

    name: str
    sentence: str  # what a caller reads about it
    uses_policy: bool = False  # the order policy puts the remaining positions in order before anything is asked
    decider: Decider | None = None  # None: what is asked is the group
    counts_candidates: bool = False  # `candidates` positions are asked for each that the group may hold
    options: tuple[str, ...] = ()  # numbers among the options of a plan that the decider reads, see `Asked.options`

    @property
    def asks_more(self) -> bool:
        """Tells whether positions are asked that the group does not hold."""
        return self.decider is not None

    @property
    def asks_all(self) -> bool:
        """Tells whether every remaining position is asked."""
        return self.asks_more and not self.counts_candidates

    def num_asked(self, num_remaining: int, limit: int, done: int, candidates: int) -> int:
        """Number of remaining positions that the backbone is asked for, where the group may hold
        `limit` more and `done` of it were decoded before an interruption."""
        if self.counts_candidates:  # the list that the whole group had, less what was decoded of it
            return min(candidates * (done + limit) - done, num_remaining)
        return num_remaining if self.asks_all else limit
