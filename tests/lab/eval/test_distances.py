"""Distances in pieces, and the measures that stand on them."""

import numpy as np
import pytest
import torch

from oar_lab.eval import distances as distances_module
from oar_lab.eval import memorisation
from oar_lab.eval.distances import distance_rows, nearest_rows
from oar_lab.eval.manifold import kth_neighbour, precision_recall
from oar_lab.eval.memorisation import closeness, nearest_pixels


def points(seed: int, count: int, width: int = 3, shift: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator, dtype=torch.float64) + shift


def test_pieces_make_the_whole_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances_module, "CHUNK", 3)
    left, right = points(0, 8, shift=1000), points(1, 5, shift=1000)
    expected = torch.cdist(left, right)
    torch.testing.assert_close(torch.cat(list(distance_rows(left, right))), expected)
    torch.testing.assert_close(nearest_rows(left, right), expected.amin(1))


def test_the_kth_neighbour_is_never_the_sample_itself() -> None:
    line = torch.tensor([[0.0], [1.0], [3.0], [7.0]]).double()
    torch.testing.assert_close(kth_neighbour(line, 1).flatten(), torch.tensor([1.0, 1.0, 2.0, 4.0]).double())
    torch.testing.assert_close(kth_neighbour(line, 2).flatten(), torch.tensor([3.0, 2.0, 3.0, 6.0]).double())


def test_precision_and_recall_follow_their_definition() -> None:
    real, fake = points(0, 30), points(1, 25, shift=0.7)
    across = torch.cdist(real, fake)

    def radii(side: torch.Tensor) -> torch.Tensor:
        return torch.cdist(side, side).sort(1).values[:, 3]

    result = precision_recall(real, fake)
    assert result.precision == (across <= radii(real)[:, None]).any(0).double().mean().item()
    assert result.recall == (across <= radii(fake)).any(1).double().mean().item()


def test_equal_sets_have_all_and_far_ones_nothing() -> None:
    same = precision_recall(points(0, 20), points(0, 20))
    apart = precision_recall(points(0, 20), points(1, 20, shift=100))
    assert (same.precision, same.recall) == (1.0, 1.0)
    assert (apart.precision, apart.recall) == (0.0, 0.0)


def test_lost_variety_shows_in_recall_alone() -> None:
    real = torch.cat([points(0, 40), points(1, 40, shift=50)])
    result = precision_recall(real, points(2, 80))
    assert result.precision > 0.8
    assert result.recall <= 0.5


def test_copies_are_found_and_new_pictures_are_not() -> None:
    training, new, others = points(0, 200), points(1, 200), points(2, 200)
    real = nearest_rows(others, training)
    copies = closeness(nearest_rows(training[:50], training), real)
    honest = closeness(nearest_rows(new, training), real)
    assert copies.distance_ratio == pytest.approx(0, abs=1e-6)
    assert copies.share_closer == 1.0
    assert honest.distance_ratio == pytest.approx(1, abs=0.2)
    assert honest.share_closer < 0.05
    assert (honest.num_generated, honest.num_real) == (200, 200)


def test_distances_at_the_threshold_are_not_closer() -> None:
    assert closeness(torch.zeros(4), torch.zeros(9)).share_closer == 0.0


def test_pixel_distance_is_in_grey_levels_to_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memorisation, "PIXEL_CHUNK", 2)
    shades = np.array([10, 60, 200], dtype=np.uint8)
    training = np.broadcast_to(shades[:, None, None, None], (3, 4, 6, 3))
    pictures = np.stack([np.full((4, 6, 3), shade, dtype=np.uint8) for shade in (66, 200, 0)])
    torch.testing.assert_close(nearest_pixels(pictures, training), torch.tensor([6.0, 0.0, 10.0]), atol=0.02, rtol=0)
