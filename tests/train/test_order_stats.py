import math

import numpy as np
import pytest
import torch

from oar_core.order.permutation import invert
from oar_core.train.order_stats import (
    foreground_patches,
    kendall,
    order_stats,
    position_entropy,
    score_agreement,
    spearman,
)


def random_orders(count: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, length, generator=torch.Generator().manual_seed(seed)).argsort(-1)


@pytest.mark.parametrize("correlation", [spearman, kendall])
def test_an_order_agrees_with_itself_and_not_with_its_reverse(correlation):
    orders = random_orders(5, 12)
    assert correlation(orders, orders).tolist() == pytest.approx([1.0] * 5)
    assert correlation(orders, orders.flip(1)).tolist() == pytest.approx([-1.0] * 5)
    assert abs(correlation(random_orders(400, 12), random_orders(400, 12, seed=1)).mean()) < 0.05


def test_spearman_is_the_correlation_of_ranks():
    a, b = random_orders(3, 9), random_orders(3, 9, seed=4)
    expected = [np.corrcoef(x, y)[0, 1] for x, y in zip(invert(a).numpy(), invert(b).numpy())]
    assert spearman(a, b).tolist() == pytest.approx(expected)


def test_kendall_counts_pairs():
    a, b = torch.tensor([[0, 1, 2]]), torch.tensor([[0, 2, 1]])
    assert kendall(a, b).item() == pytest.approx(1 / 3)  # two pairs of three in the same order


def test_agreement_names_every_pair():
    orders = {"a": random_orders(2, 6), "b": random_orders(2, 6), "c": random_orders(2, 6, seed=3)}
    result = score_agreement(orders)
    assert set(result) == {"a / b", "a / c", "b / c"}
    assert result["a / b"] == {"spearman": pytest.approx(1.0), "kendall": pytest.approx(1.0)}


def test_stats_of_orders_that_draw_the_background_first():
    """One patch of four is foreground, at position 3, and comes last; the others come in any order."""
    first = random_orders(600, 3)
    orders = torch.cat([first, torch.full((600, 1), 3)], dim=1)
    foreground = torch.tensor([False, False, False, True]).expand(600, -1)
    stats = order_stats(orders, (2, 2), foreground)
    assert (stats.foreground_rank, stats.background_rank, stats.foreground_share) == (3.0, 1.0, 0.25)
    assert stats.mean_rank[1][1] == 3.0
    assert stats.first_entropy[0] == pytest.approx(math.log2(3), abs=0.01)
    assert stats.first_entropy[3] == 0.0


def test_without_foreground_its_rank_is_unknown():
    stats = order_stats(random_orders(3, 4), (2, 2), torch.zeros(3, 4, dtype=torch.bool))
    assert stats.foreground_rank is None
    assert stats.background_rank == pytest.approx(1.5)


def test_the_entropy_of_a_uniform_choice_is_the_logarithm_of_its_number():
    assert position_entropy(torch.arange(8)) == pytest.approx(3.0)
    assert position_entropy(torch.zeros(8, dtype=torch.long)) == 0.0


def test_a_patch_with_one_coloured_pixel_is_foreground():
    pixels = np.full((2, 8, 12, 3), 253, dtype=np.uint8)
    pixels[1, 7, 4, 2] = 100  # row 1 of 2, column 1 of 3
    assert foreground_patches(pixels, (2, 3)).tolist() == [[False] * 6, [False] * 4 + [True, False]]
