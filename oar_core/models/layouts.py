"""How the tokens or values of what a model makes are laid out."""

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar, Literal

LayoutKind = Literal["grid", "sequence", "frames"]


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
