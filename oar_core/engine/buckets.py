"""The shapes of static steps: few enough to be prepared before the first picture, close enough to waste little."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

MAX_GROUP = 32  # positions of a row; steps with larger groups take the ordinary way
GROUP_STEP = 4  # between groups of more than 8, of which a power of two would leave half as pads
MAX_PLACES = 1 << 14  # rows times groups: logits and noise of as many, with 16,384 codes each, take about 5 GiB
# How many parts of a slot's capacity the prefix that is read is rounded up to, from so many rows on. A step of few rows
# is bound by the weights that it reads, whatever it reads of the cache.
EXTENT_PARTS = {1: 1, 16: 2, 64: 4}
ALIGNMENT = 8  # entries: kernels of attention take masks of such widths without a copy


@dataclass(frozen=True, order=True)
class Bucket:
    """`rows` slots from the first one on, up to `group` commits and queries each, `extent` entries read of each."""

    rows: int
    group: int
    extent: int


@dataclass(frozen=True)
class Buckets:
    """All rows and groups that are prepared, each ascending, and the extents of each number of rows."""

    rows: tuple[int, ...]
    groups: tuple[int, ...]
    extents: dict[int, tuple[int, ...]]

    @classmethod
    def plan(cls, num_slots: int, num_tokens: int, capacity: int) -> Self:
        """Powers of two for rows; the largest rows are all slots, the largest extent is a whole slot."""
        rows = _powers(num_slots)
        most = min(MAX_GROUP, num_tokens)
        groups = (size for size in (1, 2, 4, *range(8, MAX_GROUP, GROUP_STEP)) if size < most)
        return cls(rows, (*groups, most), {count: _extents(count, capacity) for count in rows})

    def least(self, rows: int, group: int, extent: int) -> Bucket | None:
        """The smallest that holds this; None where none does."""
        num_rows, size = _least(self.rows, rows), _least(self.groups, group)
        if num_rows is None or size is None or num_rows * size > MAX_PLACES:
            return None
        length = _least(self.extents[num_rows], extent)
        return None if length is None else Bucket(num_rows, size, length)

    def all(self) -> list[Bucket]:
        """Largest first: what is captured later then fits into memory that is there already."""
        pairs = ((rows, group) for rows in self.rows for group in self.groups if rows * group <= MAX_PLACES)
        return sorted((Bucket(*pair, extent) for pair in pairs for extent in self.extents[pair[0]]), reverse=True)


def _least(sizes: Sequence[int], wanted: int) -> int | None:
    return next((size for size in sizes if size >= wanted), None)


def _extents(rows: int, capacity: int) -> tuple[int, ...]:
    """Equal parts, as far as they are aligned."""
    parts = max(count for least, count in EXTENT_PARTS.items() if least <= rows)
    part = -(-capacity // (parts * ALIGNMENT)) * ALIGNMENT
    return tuple(sorted({min(capacity, part * number) for number in range(1, parts + 1)}))


def _powers(most: int) -> tuple[int, ...]:
    """1, 2, 4, ... below `most`, then `most`."""
    return (*(1 << power for power in range(most.bit_length()) if 1 << power < most), most)
