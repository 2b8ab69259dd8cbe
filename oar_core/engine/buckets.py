"""The shapes of static steps: few enough to be prepared before the first picture, close enough to waste little."""

from dataclasses import dataclass
from typing import Self

MAX_GROUP = 8  # positions of a row; steps with larger groups take the ordinary way
EXTENT_PARTS = 4  # of a slot's capacity: how much of a prefix is read is rounded up to one of these
ALIGNMENT = 8  # entries: kernels of attention take masks of such widths without a copy


@dataclass(frozen=True, order=True)
class Bucket:
    """`rows` slots from the first one on, up to `group` commits and queries each, `extent` entries read of each."""

    rows: int
    group: int
    extent: int


@dataclass(frozen=True)
class Buckets:
    """All rows, groups and extents that are prepared, each ascending."""

    rows: tuple[int, ...]
    groups: tuple[int, ...]
    extents: tuple[int, ...]

    @classmethod
    def plan(cls, num_slots: int, num_tokens: int, capacity: int) -> Self:
        """Powers of two for rows and groups; the largest rows are all slots, the largest extent is a whole slot."""
        part = -(-capacity // (EXTENT_PARTS * ALIGNMENT)) * ALIGNMENT
        extents = {min(capacity, part * number) for number in range(1, EXTENT_PARTS + 1)}
        return cls(_powers(num_slots), _powers(min(MAX_GROUP, num_tokens)), tuple(sorted(extents)))

    def least(self, rows: int, group: int, extent: int) -> Bucket | None:
        """The smallest that holds this; None where none does."""
        sizes = [
            next((size for size in sizes if size >= wanted), None)
            for sizes, wanted in ((self.rows, rows), (self.groups, group), (self.extents, extent))
        ]
        return None if None in sizes else Bucket(*(size for size in sizes if size is not None))

    def all(self) -> list[Bucket]:
        """Largest first: what is captured later then fits into memory that is there already."""
        every = [Bucket(rows, group, extent) for rows in self.rows for group in self.groups for extent in self.extents]
        return sorted(every, reverse=True)


def _powers(most: int) -> tuple[int, ...]:
    """1, 2, 4, ... below `most`, then `most`."""
    return (*(1 << power for power in range(most.bit_length()) if 1 << power < most), most)
