"""Layouts of a model's tokens or values."""

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
        """Sides of the grid."""
        return self.shape

    def place(self, position: int) -> tuple[int, int]:
        """Row and column."""
        return divmod(position, self.width)

    def address(self, position: int) -> dict[str, int]:
        """The place of a token, as its event states it."""
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
        """The shape as a grid of one row, for code that draws lines of tokens too."""
        return 1, self.num_tokens

    @property
    def num_tokens(self) -> int:
        return sum(self.groups)

    @property
    def extent(self) -> tuple[int, ...]:
        """Sizes of the groups."""
        return self.groups

    def place(self, position: int) -> tuple[int, int]:
        """Row and column in that grid."""
        return 0, position

    def address(self, position: int) -> dict[str, int]:
        """The place of a token, as its event states it."""
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
        """Size of one frame."""
        return self.height, self.width

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width

    @property
    def num_places(self) -> int:
        """Values of one frame in one channel."""
        return self.height * self.width

    @property
    def extent(self) -> tuple[int, ...]:
        """Number of frames, and the sides of one."""
        return self.num_frames, self.height, self.width


TokenLayout = GridLayout | SequenceLayout
Layout = TokenLayout | FramesLayout
