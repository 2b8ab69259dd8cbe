"""Orders that the condition decides: the tree finds what decides them, refuses nonsense, and survives its file."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oar_core.errors import ConfigError, OrderError
from oar_core.order.paths import halton, raster
from oar_core.order.plan import PROMPTED, PlanSpec, make_plan
from oar_core.order.tree import LEAF, OrderTree, fit_tree, token_presence

GRID = (4, 4)
VOCAB = 12
ORDERS = torch.tensor([raster(GRID), raster(GRID)[::-1], halton(GRID)])


def drawn(count: int, seed: int = 0) -> tuple[list[frozenset[int]], torch.Tensor]:
    """Conditions, and orders that two of their tokens decide: 3, and where it is absent 7."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.rand(count, VOCAB, generator=generator) < 0.5
    conditions = [frozenset(row.nonzero().flatten().tolist()) for row in rows]
    decided = [0 if 3 in ids else 1 if 7 in ids else 2 for ids in conditions]
    return conditions, ORDERS[decided]


def test_the_tokens_that_decide_are_found() -> None:
    conditions, orders = drawn(400)
    tree = fit_tree(token_presence(conditions, VOCAB), orders, 8, min_pictures=10)
    assert len(tree) == 3, "no cut is made that takes nothing off the error"
    assert {int(token) for token in tree.nodes[:, 0]} == {LEAF, 3, 7}
    fresh, wanted = drawn(100, seed=1)
    assert [list(tree.order(ids)) for ids in fresh] == wanted.tolist()


@given(count=st.integers(1, 60), leaves=st.integers(1, 9), least=st.integers(1, 20), seed=st.integers(0, 99))
def test_each_leaf_has_its_share_and_the_error_never_grows(count: int, leaves: int, least: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    presence = torch.rand(count, VOCAB, generator=generator) < 0.4
    orders = torch.rand(count, 16, generator=generator).argsort(dim=1)
    tree = fit_tree(presence, orders, leaves, min_pictures=least)
    found = [tree.leaf(frozenset(row.nonzero().flatten().tolist())) for row in presence]
    assert 1 <= len(tree) <= leaves
    assert set(found) == set(range(len(tree)))
    assert len(tree) == 1 or min(map(found.count, range(len(tree)))) >= least

    def error(leaf_of: list[int]) -> float:
        ranks = orders.argsort(dim=1).double()
        groups = torch.tensor(leaf_of)
        parts = [ranks[groups == leaf] for leaf in set(leaf_of)]
        return sum((part - part.mean(dim=0)).square().sum().item() for part in parts)

    assert error(found) <= error([0] * count) + 1e-6


def test_it_survives_its_file() -> None:
    conditions, orders = drawn(200)
    tree = fit_tree(token_presence(conditions, VOCAB), orders, 8, min_pictures=10)
    again = OrderTree.from_tensors(tree.tensors())
    assert [again.order(ids) for ids in conditions] == [tree.order(ids) for ids in conditions]


@pytest.mark.parametrize(
    ("nodes", "orders", "message"),
    [
        ([[LEAF, 0, 0]], [[0, 1, 1]], "permutations"),
        ([[LEAF, 1, 1]], [[0, 1, 2]], "lead to"),
        ([[5, 0, 1], [LEAF, 0, 0]], [[0, 1, 2]], "lead to"),
        ([[5, 1, 2], [LEAF, 0, 0]], [[0, 1, 2]], "lead to"),
        ([], [[0, 1, 2]], "lead to"),
    ],
)
def test_nonsense_is_refused(nodes: list[list[int]], orders: list[list[int]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OrderTree(torch.tensor(nodes, dtype=torch.long).view(-1, 3), torch.tensor(orders))


LEAF_NODE = torch.tensor([[LEAF, 0, 0]])
ORDER = torch.arange(3)[None]


@pytest.mark.parametrize(
    ("nodes", "orders", "message"),
    [
        (torch.tensor([[LEAF, 0]]), ORDER, r"rows of 3; got shape \[1, 2\]"),
        (torch.tensor([[LEAF, 0, 0, 0]]), ORDER, r"rows of 3; got shape \[1, 4\]"),
        (torch.tensor([LEAF, 0, 0]), ORDER, r"rows of 3; got shape \[3\]"),
        (torch.tensor(LEAF), ORDER, r"rows of 3; got shape \[\]"),
        (torch.tensor([[-2, 1, 1], [LEAF, 0, 0]]), ORDER, "asks for token -2"),
        (LEAF_NODE, torch.arange(3), "permutations"),
        (LEAF_NODE, torch.tensor(0), "permutations"),
        (LEAF_NODE.float(), ORDER, "whole numbers"),
        (LEAF_NODE, ORDER.half(), "whole numbers"),
    ],
)
def test_tensors_that_are_no_tree_are_refused(nodes: torch.Tensor, orders: torch.Tensor, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OrderTree.from_tensors({"nodes": nodes, "orders": orders})


def test_a_plan_alone_does_not_know_it() -> None:
    with pytest.raises(OrderError, match="keeps no orders for its prompts"):
        make_plan(PlanSpec(PROMPTED), GRID, seed=0)
