"""The rules of edits, which the API and the worker have to apply alike."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oar_wire.edit import edit_steps, num_redrawn, touched_patches


@given(
    grid=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    patch=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_patch_is_touched_where_any_of_its_pixels_is(
    grid: tuple[int, int], patch: tuple[int, int], seed: int
) -> None:
    size = (grid[0] * patch[0], grid[1] * patch[1])
    mask = np.random.default_rng(seed).random(size) < 0.1
    expected = [
        bool(mask[row * patch[0] : (row + 1) * patch[0], column * patch[1] : (column + 1) * patch[1]].any())
        for row in range(grid[0])
        for column in range(grid[1])
    ]
    assert touched_patches(mask.tobytes(), size, grid) == expected


@pytest.mark.parametrize(("touched", "strength", "redrawn"), [(9, None, 9), (9, 1.0, 9), (9, 0.5, 4), (9, 0.01, 1)])
def test_a_share_of_the_touched_patches_is_drawn_anew(touched: int, strength: float | None, redrawn: int) -> None:
    assert num_redrawn(touched, strength) == redrawn


def test_an_edit_takes_no_more_steps_than_it_draws_tokens() -> None:
    assert [edit_steps(16, drawn) for drawn in (3, 16, 40)] == [3, 16, 16]
