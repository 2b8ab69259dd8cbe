"""The contracts of every family: backbone, image tokenizer, conditioner, and the layout of what they make.

A family is a folder beside this file. What it can and cannot do is said here as properties (`BackboneSpec`), never as a
branch above it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Literal, Protocol, Self, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from oar_core.config import OrderScore
from oar_core.nn.kv_cache import FixedWindow, KVCache
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
    # Of the row's tokens in this commit, how many each may see, from the first; on the host. None: those up to itself.
    # Read by families whose tokens see their group (`Commits.GROUP`) alone.
    seen: Int[Tensor, "B K"] | None = None

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
            seen=None,
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


class Commits(Enum):
    """What a committed token sees of those that are committed after or with it."""

    CAUSAL = "causal"  # itself and the tokens before it
    GROUP = "group"  # also the other tokens of its step


class Queries(Enum):
    """What a queried position sees beside the committed tokens."""

    ALONE = "alone"  # nothing
    GROUP = "group"  # the other positions of its step


@dataclass(frozen=True)
class GridLayout:
    """Tokens are cells of a grid of `height` rows and `width` columns, numbered row by row."""

    height: int
    width: int

    kind = "grid"

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def num_tokens(self) -> int:
        return self.height * self.width

    def place(self, position: int) -> tuple[int, int]:
        """Row and column."""
        return divmod(position, self.width)


Layout = GridLayout


@dataclass(frozen=True)
class BackboneSpec:
    """What a backbone reads and writes, and who sees whom in it."""

    layout: Layout
    vocab_size: int
    condition_vocab: int  # ids of conditions are below
    max_condition: int  # tokens of a condition prefix
    commits: Commits = Commits.CAUSAL
    queries: Queries = Queries.ALONE

    @property
    def num_tokens(self) -> int:
        return self.layout.num_tokens

    @property
    def grid(self) -> tuple[int, int]:
        return self.layout.shape

    @property
    def has_free_groups(self) -> bool:
        """Whether logits depend on the committed tokens in their order alone, however they were grouped into steps.

        Where they do, a picture may be resumed from its tokens alone; elsewhere its groups are repeated.
        """
        return self.commits is Commits.CAUSAL and self.queries is Queries.ALONE

    @property
    def can_revise(self) -> bool:
        """Whether any tokens may be dropped and drawn again given all others."""
        return self.can_ask_all

    @property
    def can_ask_all(self) -> bool:
        """Whether all remaining positions can be scored in one pass without a change of what each answers."""
        return self.queries is Queries.ALONE


class Backbone(nn.Module, ABC):
    """A network that commits tokens to a KV cache and predicts tokens at queried positions.

    Invariants: a query is never cached; logits at a position depend on the row's condition and committed
    (token, position) pairs in commit order, and on what `spec` says of groups.
    """

    order_score: OrderScore  # by which it chooses its own order

    @property
    @abstractmethod
    def spec(self) -> BackboneSpec: ...

    @property
    def has_policy(self) -> bool:
        """Whether it can `score`."""
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


class ImageTokenizer(nn.Module, ABC):
    """Pixels are floats in [-1, 1]; ids run over the grid row by row; `decode_partial` accepts any id where unknown."""

    @property
    @abstractmethod
    def image_size(self) -> tuple[int, int]:
        """Y, X in pixels."""

    @property
    @abstractmethod
    def grid(self) -> tuple[int, int]: ...

    @property
    @abstractmethod
    def vocab_size(self) -> int: ...

    @abstractmethod
    def encode(self, images: Float[Tensor, "B 3 Y X"]) -> Int[Tensor, "B L"]: ...

    @abstractmethod
    def decode(self, token_ids: Int[Tensor, "B L"]) -> Float[Tensor, "B 3 Y X"]: ...

    @abstractmethod
    def decode_partial(self, token_ids: Int[Tensor, "B L"], known: Bool[Tensor, "B L"]) -> Float[Tensor, "B 3 Y X"]: ...


class Conditioner(Protocol):
    """Turns what a caller says into a condition prefix of the backbone."""

    @property
    def kind(self) -> Literal["text", "class"]: ...

    @property
    def unconditional_ids(self) -> tuple[int, ...]:
        """The prefix that guidance steers away from."""
        ...

    def encode(self, prompt: str, *, max_length: int) -> tuple[int, ...]:
        """Condition ids. Raises InvalidPrompt, PromptTooLong."""
        ...

    def encode_captions(self, captions: list[str], *, max_length: int) -> list[tuple[int, ...]]:
        """For training and evaluation: an empty caption gives the unconditional prefix, a long one is cut."""
        ...

    def to_json(self) -> str:
        """All that a process without this library needs in order to check a prompt."""
        ...

    def save(self, folder: Path) -> None: ...


def within(counts: Int[Tensor, "B"], width: int) -> Bool[Tensor, "B width"]:
    """Which of `width` right-padded places hold something."""
    return torch.arange(width, device=counts.device) < counts[:, None]


def valid_places(valid: Bool[Tensor, "B K"], device: torch.device) -> Int[Tensor, "M"]:
    """Where the valid places of a padded table lie in it, row after row; found on the host."""
    return valid.flatten().nonzero().squeeze(1).to(device)
