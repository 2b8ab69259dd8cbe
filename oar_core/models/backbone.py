"""The contract that every backbone keeps, the native one and imported families alike."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from oar_core.config import BackboneConfig, OrderScore
from oar_core.nn.kv_cache import KVCache
from oar_core.nn.tables import right_padded


@dataclass(frozen=True)
class Condition:
    """Condition prefixes of a batch: text token ids or class labels, right-padded; pads are ignored."""

    ids: Int[Tensor, "B P"]
    lengths: Int[Tensor, "B"]  # on the host

    @classmethod
    def stack(cls, rows: Sequence[Sequence[int]], device: torch.device) -> Self:
        """One prefix a row, padded to the longest."""
        return cls(torch.from_numpy(right_padded(rows)).to(device), torch.tensor([len(row) for row in rows]))


@dataclass(frozen=True)
class Commit:
    """Tokens to append to each row's cache, in decode order, right-padded; row b appends `counts[b]` of them."""

    token_ids: Int[Tensor, "B K"]
    positions: Int[Tensor, "B K"]
    counts: Int[Tensor, "B"]  # on the host

    @property
    def valid(self) -> Bool[Tensor, "B K"]:
        """Which places hold something; on the host."""
        return within(self.counts, self.token_ids.shape[1])

    @property
    def emptied(self) -> Self:
        """As many rows with nothing to append."""
        return replace(
            self,
            token_ids=self.token_ids[:, :0],
            positions=self.positions[:, :0],
            counts=torch.zeros_like(self.counts),
        )


@dataclass(frozen=True)
class Query:
    """Positions that are asked about, row after row without pads: `counts[b]` of row b."""

    positions: Int[Tensor, "M"]
    counts: tuple[int, ...]

    @classmethod
    def grid(cls, positions: Int[Tensor, "B G"]) -> Self:
        """As many of each row. Answers are brought into this shape again by `unflatten(0, positions.shape)`."""
        return cls(positions.flatten(), (positions.shape[1],) * positions.shape[0])


class Backbone(Protocol):
    """A network that commits tokens to a KV cache and predicts tokens at queried positions.

    Invariants: a query is never cached and never sees another query; logits at a position depend on the row's
    condition and committed (token, position) pairs in commit order alone, however they were grouped into calls.
    """

    config: BackboneConfig
    order_score: OrderScore  # by which it chooses its own order

    @property
    def has_policy(self) -> bool:
        """Whether it can `score`."""
        ...

    def new_cache(self, num_slots: int) -> KVCache: ...

    def prefill(self, cache: KVCache, slots: Int[Tensor, "B"], condition: Condition, known: Commit) -> None:
        """Resets the slots, then commits the condition and the known tokens (edits, resume; often none, K = 0)."""
        ...

    def step(self, cache: KVCache, slots: Int[Tensor, "B"], commit: Commit, query: Query) -> Float[Tensor, "M V"]:
        """Commits, then predicts the queried positions. A query of no positions (M = 0) commits alone."""
        ...

    def score(self, cache: KVCache, slots: Int[Tensor, "B"], candidates: Query) -> Float[Tensor, "M"]:
        """The order policy's view of positions that are not committed: the highest score is to be decoded next."""
        ...


def within(counts: Int[Tensor, "B"], width: int) -> Bool[Tensor, "B width"]:
    """Which of `width` right-padded places hold something."""
    return torch.arange(width, device=counts.device) < counts[:, None]
