from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oar_core.order.hashing import MASK, as_signed, hash_words, mix
from oar_core.order.paths import PATHS, halton, hilbert, locality, random, raster, spiral, symmetries
from tests.order.permutations import is_permutation

grids = st.tuples(st.integers(1, 17), st.integers(1, 17))


@pytest.mark.parametrize("path", [*PATHS.values(), lambda grid: random(grid, 5), lambda grid: locality(grid, 5)])
@given(grid=grids)
def test_every_path_visits_every_cell_once(path, grid):
    order = path(grid)
    assert len(order) == grid[0] * grid[1]
    assert is_permutation(order)


@pytest.mark.parametrize("path", [*PATHS.values(), lambda grid: random(grid, 5), lambda grid: locality(grid, 5)])
def test_a_one_dimensional_sequence_is_a_grid_of_height_one(path):
    assert is_permutation(path((1, 33)))


def test_raster_and_spiral_walk_as_their_names_say():
    assert raster((2, 3)) == (0, 1, 2, 3, 4, 5)
    assert spiral((3, 4)) == (0, 1, 2, 3, 7, 11, 10, 9, 8, 4, 5, 6)


@given(grid=grids)
def test_a_spiral_never_leaps(grid):
    cells = [divmod(position, grid[1]) for position in spiral(grid)]
    assert all(abs(y - v) + abs(x - u) == 1 for (y, x), (v, u) in pairwise(cells))


@pytest.mark.parametrize("side", [2, 4, 8, 16])
def test_the_hilbert_curve_of_a_power_of_two_never_leaps(side):
    cells = [divmod(position, side) for position in hilbert((side, side))]
    assert all(abs(y - v) + abs(x - u) == 1 for (y, x), (v, u) in pairwise(cells))


def test_halton_starts_in_the_corner_and_then_halves_and_thirds_the_grid():
    assert [divmod(position, 6) for position in halton((6, 6))[:4]] == [(0, 0), (2, 3), (4, 1), (0, 4)]


def test_halton_prefixes_are_spread_evenly():
    quadrants = [(position // 16 // 8, position % 16 // 8) for position in halton((16, 16))[:64]]
    assert all(12 <= quadrants.count(quadrant) <= 20 for quadrant in set(quadrants))
    assert len(set(quadrants)) == 4


def test_a_random_order_is_a_function_of_seed_and_image():
    assert random((8, 8), 3) == random((8, 8), 3)
    assert len({random((8, 8), seed, image) for seed in range(4) for image in range(4)}) == 16


def test_random_orders_put_every_position_first_about_equally_often():
    firsts = [random((2, 4), seed)[0] for seed in range(1600)]
    assert all(150 <= firsts.count(position) <= 250 for position in range(8))


def edge_neighbours(position: int, width: int, among: set[int]) -> int:
    y, x = divmod(position, width)
    return sum(abs(y - v) + abs(x - u) == 1 for v, u in (divmod(other, width) for other in among))


@given(
    grid=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    seed=st.integers(0, 5),
    kept=st.sets(st.integers(0, 48), max_size=5),
)
def test_locality_takes_the_position_with_the_most_known_neighbours(grid, seed, kept):
    length = grid[0] * grid[1]
    known = {position for position in kept if position < length}
    remaining = set(range(length)) - known
    for position in locality(grid, seed, given=known):
        if known:
            most = max(edge_neighbours(other, grid[1], known) for other in remaining)
            assert edge_neighbours(position, grid[1], known) == most > 0
        known.add(position)
        remaining.remove(position)
    assert not remaining


def test_locality_is_a_function_of_seed_and_image_and_starts_anywhere():
    assert locality((8, 8), 3, 1) == locality((8, 8), 3, 1)
    assert len({locality((8, 8), seed, image) for seed in range(4) for image in range(4)}) == 16
    assert {locality((2, 3), seed)[0] for seed in range(60)} == set(range(6))


@given(st.integers(-(2**70), 2**70))
def test_hashes_are_64_bit_words_of_any_integer(word):
    assert 0 <= hash_words(word) <= MASK
    assert hash_words(word) == hash_words(word % 2**64)
    assert as_signed(hash_words(word)) % 2**64 == hash_words(word)


def test_the_mixer_is_that_of_splitmix64():
    # First outputs of SplitMix64 seeded with 1234567, as published with the reference implementation.
    gamma = 0x9E3779B97F4A7C15
    assert [mix(1234567 + n * gamma) for n in (1, 2)] == [6457827717110365317, 3203168211198807973]


@given(grid=grids)
def test_symmetries_keep_who_are_neighbours_in_space_and_time(grid: tuple[int, int]) -> None:
    """Steps between cells that follow each other are as long in each; the walk itself is one of them."""

    def steps(order: tuple[int, ...]) -> list[list[int]]:
        cells = [divmod(position, grid[1]) for position in order]
        return [sorted((abs(b[0] - a[0]), abs(b[1] - a[1]))) for a, b in pairwise(cells)]

    walk = random(grid, 5)
    found = symmetries(walk, grid)
    assert len(found) == (8 if grid[0] == grid[1] else 4)
    assert walk in found
    assert all(is_permutation(order) for order in found)
    assert all(steps(order) == steps(walk) for order in found)


def test_symmetries_of_a_square_are_eight_walks() -> None:
    assert len(set(symmetries(halton((4, 4)), (4, 4)))) == 8
    assert symmetries((0, 1, 2, 3, 4, 5), (2, 3)) == (
        (0, 1, 2, 3, 4, 5), (2, 1, 0, 5, 4, 3), (3, 4, 5, 0, 1, 2), (5, 4, 3, 2, 1, 0)
    )  # fmt: skip
