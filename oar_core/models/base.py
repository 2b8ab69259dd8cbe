"""The contracts of every family: backbone, image tokenizer, conditioner, and the layout of what they make.

A family is a folder beside this file. What it can and cannot do is said here as properties (`BackboneSpec`), never as a
branch above it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from oar_core.config import OrderScore
from oar_core.models.condition import Condition, Features, Prefix
from oar_core.models.image_tokenizer import ImageTokenizer
from oar_core.models.layouts import FramesLayout, GridLayout, Layout, LayoutKind, SequenceLayout, TokenLayout
from oar_core.models.spec import BackboneSpec, Commits, GuidanceShare, Queries, Unconditional
from oar_core.nn.kv_cache import FixedWindow, KVCache
from oar_core.order.tree import OrderTree
from oar_wire.options import ConditionKind

__all__ = [
    "Backbone",
    "BackboneSpec",
    "Commit",
    "Commits",
    "Condition",
    "Conditioner",
    "Features",
    "FramesLayout",
    "GridLayout",
    "GuidanceShare",
    "ImageTokenizer",
    "Layout",
    "LayoutKind",
    "Prefix",
    "Queries",
    "Query",
    "SequenceLayout",
    "StaticBackbone",
    "TokenLayout",
    "Unconditional",
    "valid_places",
    "within",
]


@dataclass(frozen=True)
class Commit:
    """Tokens to append to each row's cache, in decode order, right-padded; row b appends `counts[b]` of them."""

    token_ids: Int[Tensor, "B K"]
    positions: Int[Tensor, "B K"]
    counts: Int[Tensor, "B"]  # on the host
    # Of the row's tokens in this commit, how many each may see, from the first; on the host. None: those up to itself.
    # Read by families whose tokens see their group (`Commits.GROUP`) alone.
    seen: Int[Tensor, "B K"] | None = None

    @property
    def valid(self) -> Bool[Tensor, "B K"]:
        """Marks the used places; on the host."""
        return within(self.counts, self.token_ids.shape[1])

    @property
    def emptied(self) -> Self:
        """The same rows with nothing to append."""
        return replace(
            self,
            token_ids=self.token_ids[:, :0],
            positions=self.positions[:, :0],
            counts=torch.zeros_like(self.counts),
            seen=None,
        )


@dataclass(frozen=True)
class Query:
    """Positions that are asked about, row after row without pads: `counts[b]` of row b."""

    positions: Int[Tensor, "M"]
    counts: tuple[int, ...]

    @classmethod
    def grid(cls, positions: Int[Tensor, "B G"]) -> Self:
        """The same number of positions in each row. Answers are brought into this shape again by `unflatten(0,
        positions.shape)`."""
        return cls(positions.flatten(), (positions.shape[1],) * positions.shape[0])


class Backbone(nn.Module, ABC):
    """A network that commits tokens to a KV cache and predicts tokens at queried positions.

    Invariants: a query leaves nothing in the cache that an answer to another step would see; logits at a position
    depend on the row's condition and committed (token, position) pairs in commit order, and on what `spec` says of
    groups.
    """

    order_score: OrderScore  # by which it chooses its own order
    order_tree: OrderTree | None = None  # of the orders that conditions decide

    @property
    @abstractmethod
    def spec(self) -> BackboneSpec: ...

    @property
    def has_policy(self) -> bool:
        """Tells whether it can `score`."""
        return False

    @abstractmethod
    def forward(
        self, condition: Condition, token_ids: Int[Tensor, "B L"], positions: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B L V"]:
        """Training pass, all ranks at once; tokens and positions are in decode order. `logits[:, i]` predicts the token
        at `positions[:, i]` from the condition and the tokens of rank below i."""

    @abstractmethod
    def new_cache(self, num_slots: int) -> KVCache: ...

    @abstractmethod
    def prefill(self, cache: KVCache, slots: Int[Tensor, "B"], condition: Condition, known: Commit) -> None:
        """Resets the slots, then commits the condition and the known tokens (edits, resume; often none, K = 0)."""

    @abstractmethod
    def step(self, cache: KVCache, slots: Int[Tensor, "B"], commit: Commit, query: Query) -> Float[Tensor, "M V"]:
        """Commits, then predicts the queried positions. A query of no positions (M = 0) commits alone."""

    def score(self, cache: KVCache, slots: Int[Tensor, "B"], candidates: Query) -> Float[Tensor, "M"]:  # noqa: ARG002
        """The order policy's view of positions that are not committed: the highest score is to be decoded next."""
        raise AssertionError("no order policy is attached")


@runtime_checkable
class StaticBackbone(Protocol):
    """A backbone whose step can be captured as a graph: of fixed shape, without a look at what the tables hold."""

    @property
    def spec(self) -> BackboneSpec: ...

    def static_step(
        self,
        token_ids: Int[Tensor, "M"],
        positions: Int[Tensor, "M"],
        window: FixedWindow,
        queries: Int[Tensor, "Q"],
        memory: FixedWindow,
    ) -> Float[Tensor, "Q V"]: ...


class Conditioner(Protocol):
    """Turns what a caller says into a condition prefix of the backbone."""

    @property
    def kind(self) -> ConditionKind: ...

    @property
    def unconditional_ids(self) -> tuple[int, ...]:
        """The prefix that guidance steers away from; see `Unconditional`."""
        ...

    @property
    def num_special_tokens(self) -> int:
        """Number of a prefix's tokens that are not the prompt's."""
        ...

    def encode(self, prompt: str, *, max_length: int) -> Prefix:
        """The condition. Raises PromptError, PromptLengthError."""
        ...

    def encode_captions(self, captions: list[str], *, max_length: int) -> Sequence[Prefix]:
        """Encodes for training and evaluation: an empty caption gives the unconditional prefix, a long one is cut."""
        ...

    def to_json(self) -> str:
        """All that a process without this library needs in order to check a prompt."""
        ...

    def save(self, folder: Path) -> None: ...


def within(counts: Int[Tensor, "B"], width: int) -> Bool[Tensor, "B width"]:
    """Marks the used ones of `width` right-padded places."""
    return torch.arange(width, device=counts.device) < counts[:, None]


def valid_places(valid: Bool[Tensor, "B K"], device: torch.device) -> Int[Tensor, "M"]:
    """Places of a padded table that hold something, row after row; found on the host."""
    return valid.flatten().nonzero().squeeze(1).to(device)
