"""The order of LPD (locality-aware parallel decoding, arXiv 2507.01957): each group lies near what is known, and its
positions lie apart from each other, since neighbours decide each other's tokens."""

from collections.abc import Collection, Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from oar_core.order.hashing import hash_positions
from oar_core.order.paths import Grid, Order

_LPD_ORDER = 0x6C7064
NEAR = 1.0  # the least sum of 1 / distance to known neighbours; one that shares an edge is enough
# What a position adds to its eight neighbours: to those that share an edge, and to those that share a corner.
_NEIGHBOURS = np.array([[[0, 1, 0], [1, 0, 1], [0, 1, 0]], [[1, 0, 1], [0, 0, 0], [1, 0, 1]]])


def spaced(
    grid: Grid, sizes: Iterable[int], seed: int, image_index: int = 0, given: Collection[int] = (), repulsion: int = 1
) -> Order:
    """Positions by rank, where the groups have these sizes; an edit's `given` positions are known from the start.

    Each group is laid out in two parts. First come positions that have known neighbours, those of the highest
    proximity (the sum of 1 / distance to the up to eight known neighbours) first, as long as they lie at least
    `repulsion` cells (Chebyshev) from the others of the group. What the group still lacks is filled by farthest-point
    sampling. Of equals the one with the least hash of (seed, image index, step, position) comes first. The authors'
    `repulsion_threshold` is one less than `repulsion`.
    """
    known = _Known(grid)
    known.add(given)
    order: list[int] = []
    for step, size in enumerate(sizes):
        candidates = known.by_proximity(hash_positions(grid[0] * grid[1], _LPD_ORDER, seed, image_index, step))
        near = known.proximity.flat[candidates] >= NEAR
        group, crowded = _apart(candidates[near].tolist(), size, grid, repulsion)
        rest = np.concatenate([candidates[~near], np.array(crowded, dtype=np.int64)])
        group += _farthest(rest, group, size - len(group), grid[1])
        known.add(group)
        order += group
    return tuple(order)


class _Known:
    """The known positions, and the number of known neighbours of each position."""

    def __init__(self, grid: Grid) -> None:
        height, width = grid
        self._width = width
        self._is_known = np.zeros(height * width, dtype=np.bool_)
        self._neighbours = np.zeros((2, height + 2, width + 2), dtype=np.int64)  # with a margin of one cell

    def add(self, positions: Iterable[int]) -> None:
        for position in positions:
            y, x = divmod(position, self._width)
            self._is_known[position] = True
            self._neighbours[:, y : y + 3, x : x + 3] += _NEIGHBOURS

    @property
    def proximity(self) -> Float[np.ndarray, "h w"]:
        edges, corners = self._neighbours[:, 1:-1, 1:-1]
        return edges + corners * 0.5**0.5

    def by_proximity(self, hashes: Int[np.ndarray, "L"]) -> Int[np.ndarray, "K"]:
        """The unknown positions, those of the highest proximity first."""
        ranked = np.lexsort((hashes, -self.proximity.ravel()))
        return ranked[~self._is_known[ranked]]


def _apart(candidates: Sequence[int], most: int, grid: Grid, repulsion: int) -> tuple[list[int], list[int]]:
    """Up to `most` of the candidates, in their order, that are not too close to each other; and those that were passed
    over."""
    height, width = grid
    taken: Bool[np.ndarray, "h w"] = np.zeros((height, width), dtype=np.bool_)
    group: list[int] = []
    passed: list[int] = []
    for position in candidates:
        if len(group) == most:
            break
        y, x = divmod(position, width)
        if taken[y, x]:
            passed.append(position)
            continue
        group.append(position)
        taken[max(0, y - repulsion + 1) : y + repulsion, max(0, x - repulsion + 1) : x + repulsion] = True
    return group, passed


def _farthest(candidates: Int[np.ndarray, "K"], group: Sequence[int], count: int, width: int) -> list[int]:
    """`count` of the candidates, each the farthest (Euclidean) from the group and those before it, of equals the
    first."""
    if len(candidates) <= count:
        return candidates.tolist()
    points = np.stack(np.divmod(candidates, width))
    distances = np.full(len(candidates), np.iinfo(np.int64).max)  # squared, to the closest one

    def approach(y: int, x: int) -> None:
        np.minimum(distances, (points[0] - y) ** 2 + (points[1] - x) ** 2, out=distances)

    for position in group:
        approach(*divmod(position, width))
    picks: list[int] = []
    for _ in range(count):
        pick = int(distances.argmax())
        picks.append(int(candidates[pick]))
        approach(int(points[0, pick]), int(points[1, pick]))
    return picks
