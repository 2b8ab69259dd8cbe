"""The Frechet distance against closed forms."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oar_lab.eval.frechet import Gaussian, frechet_distance, symmetric_sqrt


def gaussian(seed: int, width: int = 5, rank: int = 5) -> Gaussian:
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randn(width, rank, generator=generator, dtype=torch.float64)
    return Gaussian(torch.randn(width, generator=generator, dtype=torch.float64), factor @ factor.T)


def test_diagonal_gaussians_have_a_closed_form() -> None:
    first = Gaussian(torch.tensor([0.0, 1.0]).double(), torch.diag(torch.tensor([4.0, 9.0])).double())
    second = Gaussian(torch.tensor([3.0, 1.0]).double(), torch.diag(torch.tensor([1.0, 25.0])).double())
    assert frechet_distance(first, second) == pytest.approx(9 + (2 - 1) ** 2 + (3 - 5) ** 2)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 5))
def test_it_is_symmetric_and_zero_to_itself_also_without_full_rank(seed: int, rank: int, other_rank: int) -> None:
    first, second = gaussian(seed, rank=rank), gaussian(seed + 1, rank=other_rank)
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first), rel=1e-6, abs=1e-6)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6))
def test_commuting_covariances_differ_by_their_roots(seed: int) -> None:
    base = gaussian(seed)
    scaled = Gaussian(base.mean, 4 * base.covariance)
    # tr((2R - R)^2) with R^2 = C is tr(C). A covariance that is nearly singular costs half of the digits: it is a root.
    assert frechet_distance(base, scaled) == pytest.approx(base.covariance.trace().item(), rel=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6))
def test_a_rotation_changes_nothing(seed: int) -> None:
    first, second = gaussian(seed), gaussian(seed + 1)
    turn, _ = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    turned = [Gaussian(turn @ g.mean, turn @ g.covariance @ turn.T) for g in (first, second)]
    assert frechet_distance(*turned) == pytest.approx(frechet_distance(first, second), rel=1e-6)


def test_a_fit_has_the_mean_and_the_unbiased_covariance() -> None:
    features = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    fitted = Gaussian.fit(features)
    assert fitted.mean.dtype == fitted.covariance.dtype == torch.float64
    torch.testing.assert_close(fitted.mean, features.double().mean(0))
    torch.testing.assert_close(fitted.covariance, torch.cov(features.double().T))


def test_the_root_squares_to_the_matrix() -> None:
    covariance = gaussian(3, rank=2).covariance
    root = symmetric_sqrt(covariance)
    torch.testing.assert_close(root @ root, covariance)
