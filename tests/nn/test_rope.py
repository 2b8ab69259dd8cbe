import torch
from hypothesis import given
from hypothesis import strategies as st

from oar_core.nn.rope import RotaryTable, rotate

GRID = (3, 5)
TABLE = RotaryTable(GRID, head_width=8)


def turn(x: torch.Tensor, position: int) -> torch.Tensor:
    rotation = TABLE(torch.tensor([[position]]), x.dtype)
    return rotate(x.view(1, 1, 1, 8), rotation).flatten()


def at(row: int, column: int) -> int:
    return row * GRID[1] + column


def test_a_token_that_is_nowhere_does_not_turn():
    x = torch.randn(8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(turn(x, TABLE.nowhere), x)


def test_turning_keeps_the_length_and_tells_positions_apart():
    x = torch.randn(8, generator=torch.Generator().manual_seed(1))
    turned = torch.stack([turn(x, position) for position in range(15)])
    torch.testing.assert_close(turned.norm(dim=1), x.norm().expand(15))
    assert torch.pdist(turned).min() > 1e-2


@given(
    rows=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    columns=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    shift=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    seed=st.integers(0, 1000),
)
def test_scores_depend_on_the_offset_between_positions_alone(rows, columns, shift, seed):
    query, key = torch.randn(2, 8, generator=torch.Generator().manual_seed(seed))
    here = turn(query, at(rows[0], columns[0])) @ turn(key, at(rows[1], columns[1]))
    moved = [at(row + shift[0], column + shift[1]) for row, column in zip(rows, columns)]
    torch.testing.assert_close(turn(query, moved[0]) @ turn(key, moved[1]), here, rtol=1e-4, atol=1e-4)


def test_half_of_the_pairs_turn_with_each_axis():
    x = torch.ones(8)
    by_row, by_column = turn(x, at(1, 0)) != x, turn(x, at(0, 1)) != x
    assert by_row.tolist() == [True, True, False, False] * 2
    assert by_column.tolist() == [False, False, True, True] * 2
