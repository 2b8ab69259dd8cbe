"""Statistics of orders with known answers."""

import numpy as np
import pytest
import torch

from oar_lab.eval.painting import DARK, LIGHT
from oar_lab.eval.rank_maps import (
    class_rank_maps,
    heat_map,
    heat_sheet,
    mean_rank_map,
    pairwise_entropy,
    rank_entropy,
)

FIXED = torch.arange(6).expand(50, -1)


def shuffled(count: int, length: int) -> torch.Tensor:
    return torch.rand(count, length, generator=torch.Generator().manual_seed(0)).argsort(-1)


def test_the_map_of_one_order_is_that_order() -> None:
    expected = torch.tensor([[0, 0.2, 0.4], [0.6, 0.8, 1.0]]).double()
    torch.testing.assert_close(mean_rank_map(FIXED, (2, 3)), expected)


def test_an_order_and_its_reverse_meet_in_the_middle() -> None:
    both = torch.cat([FIXED, FIXED.flip(1)])
    torch.testing.assert_close(mean_rank_map(both, (2, 3)), torch.full((2, 3), 0.5).double())


def test_each_large_class_has_a_map_of_its_own() -> None:
    ranks = torch.cat([FIXED, FIXED.flip(1), FIXED[:3]])
    labels = torch.tensor([0] * 50 + [1] * 50 + [2] * 3)
    maps = class_rank_maps(ranks, labels, ("a", "b", "c"), (2, 3))
    assert sorted(maps) == ["a", "b"]
    torch.testing.assert_close(maps["a"], maps["b"].flip(0, 1))


def test_entropies_of_one_order_are_zero_and_of_random_orders_one() -> None:
    assert rank_entropy(FIXED) == pairwise_entropy(FIXED) == 0.0
    random = shuffled(2000, 12)
    assert rank_entropy(random) == pytest.approx(1, abs=1e-3)
    assert pairwise_entropy(random) == pytest.approx(1, abs=1e-3)


def test_entropies_of_an_order_and_its_reverse() -> None:
    both = torch.cat([FIXED, FIXED.flip(1)])
    assert pairwise_entropy(both) == pytest.approx(1.0)
    assert rank_entropy(both) == pytest.approx((np.log(2) + 1 / 200) / np.log(6))


def test_a_heat_map_goes_from_dark_to_light() -> None:
    pixels = np.asarray(heat_map(torch.tensor([[0.0, 1.0]]), zoom=3))
    assert pixels.shape == (3, 6, 3)
    assert (pixels[:, :3] == DARK).all()
    assert (pixels[:, 3:] == LIGHT).all()


def test_a_sheet_holds_every_map_under_its_name() -> None:
    maps = {name: torch.full((2, 3), shade) for name, shade in (("a", 0.0), ("b", 1.0), ("c", 0.0))}
    pixels = np.asarray(heat_sheet(maps, columns=2, zoom=4))
    top, left = pixels.shape[0] // 2, pixels.shape[1] // 2
    assert (pixels[14 : 14 + 8, :12] == DARK).all()
    assert (pixels[14 : 14 + 8, left : left + 12] == LIGHT).all()
    assert (pixels[top + 14 : top + 14 + 8, :12] == DARK).all()
    assert (pixels[:12, :20] < 128).any()
