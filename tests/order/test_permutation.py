import torch
from hypothesis import given
from hypothesis import strategies as st

from oar_core.order.permutation import invert
from tests.order.permutations import is_permutation

permutations = st.integers(1, 40).flatmap(lambda length: st.permutations(range(length)))


@given(permutations)
def test_a_shuffled_range_is_a_permutation_and_a_repeat_or_a_stranger_is_not(order):
    assert is_permutation(order)
    assert not is_permutation([*order, order[0]])
    assert not is_permutation([*order[:-1], len(order)])


@given(permutations)
def test_inverting_maps_positions_to_ranks_and_back(order):
    tensor = torch.tensor(order)
    ranks = invert(tensor)
    assert ranks[tensor].tolist() == list(range(len(order)))
    assert invert(ranks).tolist() == list(order)


@given(st.integers(1, 12).flatmap(lambda n: st.lists(st.permutations(range(n)), min_size=1, max_size=4)))
def test_a_batch_is_inverted_row_by_row(orders):
    assert invert(torch.tensor(orders)).tolist() == [invert(torch.tensor(order)).tolist() for order in orders]
