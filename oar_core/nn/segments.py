"""Division of a pass' rows for attention: ranges of neighbouring slots, read where they lie.

All that works token by token (projections, feed-forward, the head) takes the tokens of a pass as one list without
pads. Attention wants rows of equal width. Rows are therefore joined to ranges of slots, each a grid of its slots by its
widest row. A range is read without a copy, and gathering keys and values costs several times what attention over them
does; so a pad, or even a slot between that takes no part, is the cheaper waste as long as it is small. The cost model
decides.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Int

from oar_core.nn.tables import places_within


class RowSpan(NamedTuple):
    """One row, or a range of rows: slots `first..last - 1`, `width` tokens a row, `extent` entries that are read."""

    first: int
    last: int
    width: int
    extent: int

    @property
    def num_rows(self) -> int:
        return self.last - self.first

    @property
    def num_places(self) -> int:
        """Size of its grid, pads included."""
        return self.num_rows * self.width

    def joined(self, other: "RowSpan") -> "RowSpan":
        """The range over both; `other` lies behind."""
        return RowSpan(self.first, other.last, max(self.width, other.width), max(self.extent, other.extent))


@dataclass(frozen=True)
class SegmentCost:
    """Estimated cost of attention over one range, in multiply-adds of a key with a query.

    Each row reads its `extent` entries of `width` numbers once from memory, then once for each token. `call` is what a
    range costs whatever it holds: infinite where a launch costs more than any padding.
    """

    width: int  # of a key, all heads together
    call: float

    def of(self, span: RowSpan) -> float:
        return self.call + span.num_rows * span.extent * self.width * (1 + span.width)


# On one core a range costs about 20 microseconds a layer, in which attention does some 100,000 multiply-adds (fp32).
# Between this and 120,000 the time of a mixed load is the same; fewer pads are the better half of it.
CPU_CALL_COST = 50_000


def segment_cost(width: int, device_type: str) -> SegmentCost:
    return SegmentCost(width, CPU_CALL_COST if device_type == "cpu" else math.inf)


def divide(rows: Iterable[RowSpan], cost: SegmentCost) -> list[RowSpan]:
    """Joins rows, given by ascending slot, to ranges while that makes them cheaper. Rows without tokens take no part.

    Greedy from the left: a row joins the range before it, and a range that has grown joins the one before in turn.
    """
    ranges: list[RowSpan] = []
    for span in rows:
        if not span.width:
            continue
        while ranges:
            joined = ranges[-1].joined(span)
            if cost.of(joined) > cost.of(ranges[-1]) + cost.of(span):
                break
            span = joined
            ranges.pop()
        ranges.append(span)
    return ranges


@dataclass(frozen=True)
class Layout:
    """Places of a pass' tokens, one list of M, on the grids of its segments, P places one after another."""

    segments: list[RowSpan]
    places: Int[np.ndarray, "M"]  # of each token
    sources: Int[np.ndarray, "P"]  # the token at each place; the first one at a pad

    @classmethod
    def of(
        cls, slots: Int[np.ndarray, "B"], counts: Int[np.ndarray, "B"], lengths: Int[np.ndarray, "B"], cost: SegmentCost
    ) -> Self:
        """`counts[b]` tokens of the row in `slots[b]`, which read up to `lengths[b]` entries."""
        rows = sorted(zip(slots.tolist(), counts.tolist(), lengths.tolist()))
        segments = divide((RowSpan(slot, slot + 1, count, length) for slot, count, length in rows), cost)
        num_places = sum(segment.num_places for segment in segments)
        places = places_within(_row_starts(segments, slots), counts)
        sources = np.zeros(num_places, dtype=np.int64)
        sources[places] = np.arange(len(places))
        return cls(segments, places, sources)

    @property
    def num_pads(self) -> int:
        return len(self.sources) - len(self.places)

    @property
    def is_list(self) -> bool:
        """Tells whether the grids are the list itself."""
        return not self.num_pads and bool((self.places == np.arange(len(self.places))).all())


def _row_starts(segments: list[RowSpan], slots: Int[np.ndarray, "B"]) -> Int[np.ndarray, "B"]:
    """The place of each row's first token; any where it has none."""
    starts = np.zeros(len(slots), dtype=np.int64)
    place = 0
    for segment in segments:
        inside = (segment.first <= slots) & (slots < segment.last)
        starts[inside] = place + (slots[inside] - segment.first) * segment.width
        place += segment.num_places
    return starts
