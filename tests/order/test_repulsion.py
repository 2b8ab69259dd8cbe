"""Positions of one step that keep apart: against a plain reference, and in pictures."""

import dataclasses
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oar_core.engine.config import EngineConfig
from oar_core.engine.engine import Engine
from oar_core.errors import StepsError
from oar_core.order.plan import PlanSpec
from oar_core.order.repulsion import Repulsion, surest, surest_apart
from oar_core.order.rules import RULES
from oar_core.sampling.generate import generate
from oar_core.sampling.progress import Patch
from oar_core.sampling.request import KnownTokens, SequenceRequest
from tests.engine.backbones import TINY, UNCONDITIONAL, tiny_backbone
from tests.engine.requests import ORDERS, decoded_patches, made_by, make_request

WIDTH = 5
MODEL_ORDERS = tuple(RULES)
REPELLED_ORDERS = (*MODEL_ORDERS, "spaced")  # that can keep the positions of a step apart


def cells_between(one: int, other: int) -> int:
    (y, x), (v, u) = divmod(one, WIDTH), divmod(other, WIDTH)
    return max(abs(y - v), abs(x - u))


def picked_plainly(scores: dict[int, float], take: int, distance: int, begun: list[int]) -> list[int]:
    """One after another, the highest of those with the fewest neighbours in the group."""
    group, left = list(begun), dict(scores)
    for _ in range(take):
        conflicts = {p: sum(cells_between(p, other) < distance for other in group) for p in left}
        fewest = min(conflicts.values())
        best = max((p for p in left if conflicts[p] == fewest), key=lambda p: (left[p], -p))
        group.append(best)
        del left[best]
    return group[len(begun) :]


ROWS = st.lists(
    st.tuples(
        st.dictionaries(st.integers(0, 24), st.integers(0, 4).map(float), min_size=4, max_size=20),
        st.integers(1, 4),
        st.lists(st.integers(25, 29), max_size=3, unique=True),
    ),
    min_size=1,
    max_size=4,
)


@given(ROWS, st.integers(1, 4))
def test_a_step_of_many_rows_picks_what_plain_loops_pick(rows, take):
    width = max(len(scores) for scores, _, _ in rows)
    table, candidates = torch.zeros(len(rows), width), torch.zeros(len(rows), width, dtype=torch.long)
    begun = torch.zeros(len(rows), 3, dtype=torch.long)
    for index, (scores, _, done) in enumerate(rows):
        candidates[index, : len(scores)] = torch.tensor(sorted(scores))
        table[index, : len(scores)] = torch.tensor([scores[position] for position in sorted(scores)])
        begun[index, : len(done)] = torch.tensor(done, dtype=torch.long)
    widths = torch.tensor([len(scores) for scores, _, _ in rows])
    repulsion = Repulsion(
        torch.tensor([distance for _, distance, _ in rows]),
        begun,
        torch.tensor([len(done) for _, _, done in rows]),
        WIDTH,
    )
    picks = candidates.gather(1, surest_apart(table, widths, take, candidates, repulsion))
    assert picks.tolist() == [picked_plainly(scores, take, distance, done) for scores, distance, done in rows]


def test_without_a_wish_nothing_is_computed_and_distance_1_is_the_same():
    scores, widths = torch.randn(3, 12), torch.tensor([12, 7, 5])
    candidates = torch.arange(12).expand(3, -1)
    none = Repulsion(
        torch.ones(3, dtype=torch.long), torch.zeros(3, 0, dtype=torch.long), torch.zeros(3, dtype=torch.long), WIDTH
    )
    expected = surest(scores, widths, 5)
    assert torch.equal(surest_apart(scores, widths, 5, candidates, None), expected)
    assert torch.equal(surest_apart(scores, widths, 5, candidates, none), expected)


def groups_of(request: SequenceRequest) -> list[list[int]]:
    groups: list[list[int]] = []

    def note(_index: int, _step: int, _steps: int, patches: tuple[Patch, ...]) -> None:
        groups.append([patch.position for patch in patches])

    generate(tiny_backbone(), [request], UNCONDITIONAL, on_step=note)
    return groups


def num_neighbours(groups: list[list[int]], width: int = TINY.grid[1]) -> int:
    pairs = (pair for group in groups for pair in itertools.combinations(group, 2))
    return sum(max(abs(one // width - other // width), abs(one % width - other % width)) < 2 for one, other in pairs)


@pytest.mark.parametrize("order", MODEL_ORDERS)
def test_groups_of_chosen_orders_keep_apart(order):
    def pictures(distance: int) -> list[list[list[int]]]:
        wanted = {"order": order, "steps": 10, "group_sizes": "constant", "repulsion": distance}
        return [groups_of(make_request(index, **wanted)) for index in range(8)]

    plain, apart = pictures(1), pictures(2)
    assert all(sorted(itertools.chain(*groups)) == list(range(TINY.num_tokens)) for groups in apart)
    # Pairs, of which the last few steps may have no choice.
    assert sum(map(num_neighbours, apart)) < sum(map(num_neighbours, plain))
    assert all(num_neighbours(groups[:5]) == 0 for groups in apart)


@pytest.mark.parametrize("order", [order for order in ORDERS if order not in REPELLED_ORDERS], ids=str)
def test_it_is_nothing_to_orders_that_are_listed(order):
    one, other = (decoded_patches(tiny_backbone(), make_request(1, order=order, steps=6, repulsion=d)) for d in (1, 3))
    assert one == other


def repelled(count: int) -> list[SequenceRequest]:
    return [
        make_request(
            index,
            order=MODEL_ORDERS[index % len(MODEL_ORDERS)],
            steps=(6, 9, 3)[index % 3],
            group_sizes=("cosine", "adaptive", "constant")[index // 4 % 3],
            repulsion=(2, 1, 3)[index % 3],
        )
        for index in range(count)
    ]


def test_batched_equals_alone():
    requests = repelled(16)
    alone = {request.id: generate(tiny_backbone(), [request], UNCONDITIONAL)[0] for request in requests}
    assert made_by(Engine(tiny_backbone(), UNCONDITIONAL, EngineConfig(12)), requests) == alone


@pytest.mark.parametrize("order", MODEL_ORDERS)
def test_a_picture_that_was_interrupted_inside_a_group_keeps_apart_from_its_first_part(order):
    request = make_request(4, order=order, steps=5, repulsion=2)
    whole = decoded_patches(tiny_backbone(), request)
    for cut in range(len(whole) + 1):
        done = whole[:cut]
        known = KnownTokens(tuple(p.position for p in done), tuple(p.token_id for p in done), num_resumed=cut)
        rest = decoded_patches(tiny_backbone(), dataclasses.replace(request, known=known))
        assert [(p.position, p.token_id) for p in rest] == [(p.position, p.token_id) for p in whole[cut:]]


@pytest.mark.parametrize("distance", [0, 129])
def test_a_distance_outside_the_bounds_is_refused(distance):
    with pytest.raises(StepsError, match="repulsion"):
        PlanSpec(order="confidence", repulsion=distance)
