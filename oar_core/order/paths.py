"""Fixed walks over a token grid. Each takes a grid (h, w) and returns all of its positions, `y * w + x`, once.

A one-dimensional sequence of L tokens is the grid (1, L).
"""

from collections.abc import Callable, Collection
from functools import lru_cache
from heapq import heapify, heappop, heappush

from oar_core.order.hashing import hash_words

Grid = tuple[int, int]
Order = tuple[int, ...]

# They keep the hashes of orders apart from those of noise, and from each other.
_RANDOM_ORDER = 0x6F72646572
_LOCALITY_ORDER = 0x6C6F63616C


def raster(grid: Grid) -> Order:
    """Row by row, left to right."""
    return tuple(range(grid[0] * grid[1]))


@lru_cache(maxsize=64)
def spiral(grid: Grid) -> Order:
    """Clockwise from the top left, inwards."""
    top, left, bottom, right = 0, 0, grid[0] - 1, grid[1] - 1
    cells: list[tuple[int, int]] = []
    while top <= bottom and left <= right:
        cells += [(top, x) for x in range(left, right + 1)]
        cells += [(y, right) for y in range(top + 1, bottom + 1)]
        if top < bottom and left < right:
            cells += [(bottom, x) for x in range(right - 1, left - 1, -1)]
            cells += [(y, left) for y in range(bottom - 1, top, -1)]
        top, left, bottom, right = top + 1, left + 1, bottom - 1, right - 1
    return tuple(y * grid[1] + x for y, x in cells)


@lru_cache(maxsize=64)
def hilbert(grid: Grid) -> Order:
    """Along the Hilbert curve of the smallest square of side 2**k that covers the grid; cells outside are skipped."""
    height, width = grid
    side = 1 << (max(height, width) - 1).bit_length()
    return tuple(sorted(range(height * width), key=lambda p: _hilbert_distance(p // width, p % width, side)))


def _hilbert_distance(y: int, x: int, side: int) -> int:
    """Distance of a cell along the curve: at each scale, the quadrant's number, then the turn into its frame."""
    distance, half = 0, side // 2
    while half:
        right, down = int(x >= half), int(y >= half)
        distance += half * half * ((3 * right) ^ down)
        x, y = x - half * right, y - half * down
        if not down:
            if right:
                x, y = half - 1 - x, half - 1 - y
            x, y = y, x
        half //= 2
    return distance


@lru_cache(maxsize=64)
def halton(grid: Grid) -> Order:
    """Cells as the Halton sequence of bases 2 (across) and 3 (down) first visits them: each prefix is spread evenly.

    The walk ends: a cell holds an elementary interval of at least `1 / (24 L)` of the area, and of any that many
    consecutive points exactly one falls in it. (Halton 1964; for token grids, Besnier et al. 2025.)
    """
    height, width = grid
    visited: dict[int, None] = {}
    index = 0
    while len(visited) < height * width:
        across, down = _radical_inverse(index, 2), _radical_inverse(index, 3)
        visited[down[0] * height // down[1] * width + across[0] * width // across[1]] = None
        index += 1
    return tuple(visited)


def symmetries(order: Order, grid: Grid) -> tuple[Order, ...]:
    """The order, its mirror images and its turns: eight on a square grid, four on another."""
    height, width = grid
    cells = [divmod(position, width) for position in order]
    transposed = [(x, y) for y, x in cells]
    return tuple(
        tuple((height - 1 - y if down else y) * width + (width - 1 - x if across else x) for y, x in walk)
        for walk in ([cells, transposed] if height == width else [cells])
        for down in (False, True)
        for across in (False, True)
    )


def _radical_inverse(index: int, base: int) -> tuple[int, int]:
    """The digits of `index` mirrored at the radix point, as an exact fraction (numerator, denominator)."""
    numerator, denominator = 0, 1
    while index:
        index, digit = divmod(index, base)
        numerator, denominator = numerator * base + digit, denominator * base
    return numerator, denominator


def random(grid: Grid, seed: int, image_index: int = 0) -> Order:
    """A permutation that is a function of its seed alone: positions sorted by their hash."""
    return tuple(sorted(range(grid[0] * grid[1]), key=lambda p: (hash_words(_RANDOM_ORDER, seed, image_index, p), p)))


def locality(grid: Grid, seed: int, image_index: int = 0, given: Collection[int] = ()) -> Order:
    """Grows outwards from what is known: next comes the position with the most known neighbours.

    Of equals the one with the most known diagonal neighbours, then the one with the least hash of (seed, image index,
    position); the picture's content has no say. The first position is the one of the least hash, unless an edit's
    `given` positions are there to grow from; they are no part of the result. (Locality-aware orders: arXiv 2507.01957.)
    """
    height, width = grid
    hashes = [hash_words(_LOCALITY_ORDER, seed, image_index, position) for position in range(height * width)]
    closeness = [0] * (
        height * width
    )  # known neighbours: 5 for one that shares an edge, 1 for one that shares a corner
    known = set(given)
    for position in known:
        _add_known(closeness, position, grid)
    heap = [(-closeness[p], hashes[p], p) for p in range(height * width) if p not in known]
    heapify(heap)
    order: list[int] = []
    while heap:
        negative, _, position = heappop(heap)
        if position in known or -negative != closeness[position]:
            continue  # an entry from before its neighbours became known
        known.add(position)
        order.append(position)
        for neighbour in _add_known(closeness, position, grid):
            heappush(heap, (-closeness[neighbour], hashes[neighbour], neighbour))
    return tuple(order)


def _add_known(closeness: list[int], position: int, grid: Grid) -> list[int]:
    """Counts a position in with its up to eight neighbours, which are returned."""
    y, x = divmod(position, grid[1])
    neighbours: list[int] = []
    for v in range(max(0, y - 1), min(grid[0], y + 2)):
        for u in range(max(0, x - 1), min(grid[1], x + 2)):
            if (v, u) != (y, x):
                neighbours.append(v * grid[1] + u)
                closeness[neighbours[-1]] += 5 if v == y or u == x else 1
    return neighbours


PATHS: dict[str, Callable[[Grid], Order]] = {"raster": raster, "spiral": spiral, "hilbert": hilbert, "halton": halton}
