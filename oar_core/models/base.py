"""The contracts of every family: backbone, image tokenizer, conditioner, and the layout of what they make.

A family is a folder beside this file. What it can and cannot do is said here as properties (`BackboneSpec`), never as a
branch above it.
"""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import accumulate
from pathlib import Path
from typing import ClassVar, Literal, Protocol, Self, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from oar_core.config import OrderScore
from oar_core.nn.kv_cache import FixedWindow, KVCache
from oar_core.nn.tables import moved, right_padded
from oar_wire.options import ConditionKind, model_options

LayoutKind = Literal["grid", "sequence", "frames"]


@dataclass(frozen=True, eq=False)
class Features:
    """A condition prefix of vectors in place of ids, such as an encoder makes of a caption; on the host."""

    values: Float[Tensor, "P F"]

    def __len__(self) -> int:
        return len(self.values)


Prefix = tuple[int, ...] | Features


@dataclass(frozen=True)
class Condition:
    """Condition prefixes of a batch: text token ids or class labels, right-padded; pads are ignored.

    Rows of which `is_features` consist of `features`, and their ids say nothing.
    """

    ids: Int[Tensor, "B P"]
    lengths: Int[Tensor, "B"]  # on the host
    features: Float[Tensor, "B P F"] | None = None  # None: no row has any
    is_features: Bool[Tensor, "B"] | None = None

    @classmethod
    def stack(cls, rows: Sequence[Prefix | Sequence[int]], device: torch.device) -> Self:
        """One prefix a row, padded to the longest."""
        ids = right_padded([(0,) * len(row) if isinstance(row, Features) else row for row in rows])
        return cls(
            moved([ids], device)[0],
            torch.tensor([len(row) for row in rows]),
            *cls._features(rows, ids.shape[1], device),
        )

    @staticmethod
    def _features(
        rows: Sequence[Prefix | Sequence[int]], length: int, device: torch.device
    ) -> tuple[Float[Tensor, "B P F"], Bool[Tensor, "B"]] | tuple[None, None]:
        found = [row.values for row in rows if isinstance(row, Features)]
        if not found:
            return None, None
        table = torch.zeros(len(rows), length, found[0].shape[1])
        for row, values in zip(table, rows):
            if isinstance(values, Features):
                row[: len(values)] = values.values
        return table.to(device), torch.tensor([isinstance(row, Features) for row in rows], device=device)


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
    EARLIER = "earlier"  # the positions of its step that come before it
    NEXT = "next"  # nothing, and it is no choice: what is answered is what follows the last commit


class Unconditional(Enum):
    """What guidance steers away from, beside a condition."""

    FIXED = "fixed"  # one prefix, whatever the condition is
    LAST = "last"  # of that prefix, the last ids: as many as the condition is long
    PADDED = "padded"  # of a prefix of three ids, the second one so often that both are of the same length


class GuidanceShare(Enum):
    """At which share of a picture a guidance that grows with it is read for the positions of a step."""

    START = "start"  # the positions that were decoded before the step
    END = "end"  # those and the step's own
    RANK = "rank"  # of each position, those of lower rank

    def of(self, start: int, end: int, length: int) -> tuple[float, ...]:
        """The share at each rank of a step that decodes the ranks from `start` to `end` - 1 of a picture of `length`;
        one for all, unless it is by rank."""
        ranks = {GuidanceShare.START: (start,), GuidanceShare.END: (end,), GuidanceShare.RANK: range(start, end)}
        return tuple(rank / length for rank in ranks[self])


@dataclass(frozen=True)
class GridLayout:
    """Tokens are cells of a grid of `height` rows and `width` columns, numbered row by row."""

    height: int
    width: int

    kind: ClassVar[LayoutKind] = "grid"
    orders: ClassVar[tuple[str, ...] | None] = None  # in which it can be written; None: in any
    can_edit: ClassVar[bool] = True  # whether a part of what it shows is a part of its tokens

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def num_tokens(self) -> int:
        return self.height * self.width

    @property
    def extent(self) -> tuple[int, ...]:
        """What describes it to others: its sides."""
        return self.shape

    def place(self, position: int) -> tuple[int, int]:
        """Row and column."""
        return divmod(position, self.width)

    def address(self, position: int) -> dict[str, int]:
        """Where a token is, as its event says it."""
        row, col = self.place(position)
        return {"row": row, "col": col}


@dataclass(frozen=True)
class SequenceLayout:
    """Tokens are written from the first to the last, in groups from coarse to fine. Each tells of the whole picture."""

    groups: tuple[int, ...]  # sizes

    kind: ClassVar[LayoutKind] = "sequence"
    orders: ClassVar[tuple[str, ...] | None] = ("raster",)
    can_edit: ClassVar[bool] = False

    @property
    def shape(self) -> tuple[int, int]:
        """As a grid of one row, for what draws a line of tokens as well."""
        return 1, self.num_tokens

    @property
    def num_tokens(self) -> int:
        return sum(self.groups)

    @property
    def extent(self) -> tuple[int, ...]:
        """What describes it to others: the sizes of its groups."""
        return self.groups

    def place(self, position: int) -> tuple[int, int]:
        """Row and column in that grid."""
        return 0, position

    def address(self, position: int) -> dict[str, int]:
        """Where a token is, as its event says it."""
        ends = list(accumulate(self.groups))
        group = bisect_right(ends, position)
        return {"group": group, "place": position - (ends[group] - self.groups[group])}


@dataclass(frozen=True)
class FramesLayout:
    """Frames, one after another; each is a grid of places that hold `channels` values."""

    num_frames: int
    height: int
    width: int
    channels: int

    kind: ClassVar[LayoutKind] = "frames"
    can_edit: ClassVar[bool] = False

    @property
    def shape(self) -> tuple[int, int]:
        """Of one frame."""
        return self.height, self.width

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width

    @property
    def num_places(self) -> int:
        """Of one frame."""
        return self.height * self.width

    @property
    def extent(self) -> tuple[int, ...]:
        """What describes it to others: how many frames, and the sides of one."""
        return self.num_frames, self.height, self.width


TokenLayout = GridLayout | SequenceLayout
Layout = TokenLayout | FramesLayout


@dataclass(frozen=True)
class BackboneSpec:
    """What a backbone reads and writes, and who sees whom in it."""

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
        """Whether logits depend on the committed tokens in their order alone, however they were grouped into steps.

        Where they do, a picture may be resumed from its tokens alone; elsewhere its groups are repeated.
        """
        return self.has_free_commits and self.queries in (Queries.ALONE, Queries.NEXT)

    @property
    def has_free_commits(self) -> bool:
        """Whether what a committed token leaves in the cache does not depend on which others came with it."""
        return self.commits is Commits.CAUSAL

    @property
    def options(self) -> tuple[str, ...]:
        """The options of a drawing that mean something to this family."""
        return tuple(option.name for option in model_options())

    @property
    def can_edit(self) -> bool:
        """Whether a picture can be given in part."""
        return self.layout.can_edit and self.has_free_order

    @property
    def can_vary(self) -> bool:
        """Whether a picture like a given one can be drawn: from a part of its tokens, or from the first of them."""
        return self.can_edit or isinstance(self.layout, SequenceLayout)

    @property
    def can_revise(self) -> bool:
        """Whether any tokens may be dropped and drawn again given all others."""
        return self.can_ask_all

    @property
    def can_ask_all(self) -> bool:
        """Whether all remaining positions can be scored in one pass without a change of what each answers."""
        return self.queries is Queries.ALONE

    @property
    def has_free_order(self) -> bool:
        """Whether any position can be asked at any time.

        Where it cannot, pictures are written in raster order, in steps of `fixed_sizes`, and none of their tokens can
        be given but the first ones, as those of an earlier run.
        """
        return self.queries is not Queries.NEXT

    @property
    def fixed_sizes(self) -> tuple[int, ...] | None:
        """How many positions each step decodes, where it can be no other number: the groups of a sequence, or one
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


class Backbone(nn.Module, ABC):
    """A network that commits tokens to a KV cache and predicts tokens at queried positions.

    Invariants: a query leaves nothing in the cache that an answer to another step would see; logits at a position
    depend on the row's condition and committed (token, position) pairs in commit order, and on what `spec` says of
    groups.
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
    """Pixels are floats in [-1, 1]; ids run over the grid row by row.

    `decode_partial` accepts any id where unknown. It decodes a code for "unknown" there, or a neutral one where the
    tokenizer was trained without (`has_unknown_code` is false): so far from what it knows, it had better not be asked
    about many.
    """

    has_unknown_code: ClassVar[bool] = False  # whether it was trained to decode pictures with unknown positions
    decoder: nn.Module  # from vectors of codes to pixels

    def decode_in(self, dtype: torch.dtype) -> None:
        """Sets the number format of the decoder, in place. What is encoded, and which vector a code has, stay as they
        are."""
        self.decoder.to(dtype)

    def to_decoder(self, grid: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """Vectors as the decoder takes them: in its number format, channels last."""
        dtype = next(self.decoder.parameters()).dtype
        return grid.to(dtype).contiguous(memory_format=torch.channels_last)

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

    def resolution(self, count: int) -> tuple[int, int]:  # noqa: ARG002
        """Y, X in pixels that the first `count` tokens tell of: of a grid all, as each tells of its own place."""
        return self.image_size

    @abstractmethod
    def encode(self, images: Float[Tensor, "B 3 Y X"]) -> Int[Tensor, "B L"]: ...

    @abstractmethod
    def decode(self, token_ids: Int[Tensor, "B L"]) -> Float[Tensor, "B 3 Y X"]: ...

    @abstractmethod
    def decode_partial(self, token_ids: Int[Tensor, "B L"], known: Bool[Tensor, "B L"]) -> Float[Tensor, "B 3 Y X"]: ...


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
        """How many tokens of a prefix are not the prompt's."""
        ...

    def encode(self, prompt: str, *, max_length: int) -> Prefix:
        """The condition. Raises InvalidPrompt, PromptTooLong."""
        ...

    def encode_captions(self, captions: list[str], *, max_length: int) -> Sequence[Prefix]:
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
