"""LPD's own order: near what is known, apart from each other within a group."""

import math
from itertools import accumulate, combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oar_core.models.lpd.groups import lpd_groups
from oar_core.order.hashing import hash_positions, hash_words
from oar_core.order.plan import PlanSpec, group_sizes, make_plan
from oar_core.order.spaced import _LPD_ORDER, spaced
from tests.order.permutations import is_permutation

grids = st.tuples(st.integers(1, 9), st.integers(1, 9))


def plainly(grid, sizes, seed, image_index, known, repulsion):
    """The published rule over lists of cells, a cell at a time."""
    cells = [(y, x) for y in range(grid[0]) for x in range(grid[1])]
    known, order = {divmod(position, grid[1]) for position in known}, []

    def proximity(cell):
        steps = [math.dist(cell, other) for other in known if max(abs(cell[0] - other[0]), abs(cell[1] - other[1])) < 2]
        return sum(distance == 1 for distance in steps) + sum(distance > 1 for distance in steps) / math.sqrt(2)

    def chebyshev(cell, other):
        return max(abs(cell[0] - other[0]), abs(cell[1] - other[1]))

    for step, size in enumerate(sizes):
        shuffled = sorted(
            (cell for cell in cells if cell not in known),
            key=lambda cell: hash_words(_LPD_ORDER, seed, image_index, step, cell[0] * grid[1] + cell[1]),
        )
        ranked = sorted(shuffled, key=lambda cell: -proximity(cell))
        near, rest, passed = [c for c in ranked if proximity(c) >= 1], [c for c in ranked if proximity(c) < 1], []
        group = []
        for cell in near:
            if len(group) < size:
                is_apart = all(chebyshev(cell, other) >= repulsion for other in group)
                (group if is_apart else passed).append(cell)
        rest += passed
        if len(rest) <= size - len(group):
            group += rest
        while len(group) < size:
            left = [cell for cell in rest if cell not in group]
            group.append(max(left, key=lambda cell: min((math.dist(cell, other) for other in group), default=0)))
        known |= set(group)
        order += group
    return tuple(y * grid[1] + x for y, x in order)


@given(grid=grids, steps=st.integers(1, 12), seed=st.integers(0, 9), repulsion=st.integers(1, 5), data=st.data())
def test_it_is_the_published_rule(grid, steps, seed, repulsion, data):
    length = grid[0] * grid[1]
    known = data.draw(st.sets(st.integers(0, length - 1), max_size=length - 1))
    sizes = group_sizes("cosine", min(steps, length - len(known)), length - len(known))
    order = spaced(grid, sizes, seed, 3, known, repulsion)
    assert order == plainly(grid, sizes, seed, 3, known, repulsion)
    assert sorted((*order, *known)) == list(range(length))


@pytest.mark.parametrize(("side", "steps", "repulsion"), [(16, 20, 3), (16, 32, 3), (16, 20, 4), (32, 48, 5)])
def test_with_published_groups_each_group_is_near_what_is_known_and_apart(side, steps, repulsion):
    sizes = lpd_groups(steps, side * side)
    order = spaced((side, side), sizes, 7, 0, (), repulsion)
    assert is_permutation(order)
    cells = [divmod(position, side) for position in order]
    ends = (0, *accumulate(sizes))
    for start, end in list(pairwise(ends))[1 : steps // 2]:
        assert least_distance(cells[start:end]) >= min(repulsion, 2)
    touching = sum(
        any(max(abs(y - v), abs(x - u)) == 1 for v, u in cells[:start])
        for start, end in list(pairwise(ends))[1:]
        for y, x in cells[start:end]
    )
    assert touching / len(cells) > 0.75


def least_distance(cells):
    return min((max(abs(y - v), abs(x - u)) for (y, x), (v, u) in combinations(cells, 2)), default=99)


def test_orders_of_the_published_table_are_pinned():
    """The authors' own generator gives this order where its shuffle is ours."""
    order = spaced((16, 16), lpd_groups(20, 256), 0, 0, (), 3)
    assert order[:12] == (125, 126, 240, 141, 241, 0, 9, 142, 225, 8, 16, 249)


def test_a_seed_and_an_image_have_an_order_of_their_own_and_it_starts_anywhere():
    sizes = (1, 2, 3, 4, 6)
    assert len({spaced((4, 4), sizes, seed, image) for seed in range(4) for image in range(4)}) == 16
    assert {spaced((2, 3), (1, 2, 3), seed)[0] for seed in range(60)} == set(range(6))


def test_a_plan_lays_it_out_for_its_own_groups_and_keeps_what_is_given():
    spec = PlanSpec("spaced", 5, "published", repulsion=3)
    plan = make_plan(spec, (4, 4), seed=3, image_index=1, published=lambda steps, length: (1, 2, 3, 4, 6))
    assert plan.order == spaced((4, 4), (1, 2, 3, 4, 6), 3, 1, (), 3)
    edit = make_plan(spec, (4, 4), seed=3, given={6, 7})
    assert edit.order is not None
    assert sorted(edit.order) == sorted(set(range(16)) - {6, 7})
    adaptive = make_plan(PlanSpec("spaced", 5, "adaptive"), (4, 4), seed=3)
    assert adaptive.order == make_plan(PlanSpec("spaced", 5, "cosine"), (4, 4), seed=3).order


def test_hashes_of_all_positions_are_those_of_each():
    assert hash_positions(9, 3, -4, 2**70).tolist() == [hash_words(3, -4, 2**70, position) for position in range(9)]
