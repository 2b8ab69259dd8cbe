"""Bootstrap intervals against closed forms, repetition and each other."""

import numpy as np
import pytest
import torch

from oar_lab.eval.bootstrap import (
    FrechetReference,
    Resampled,
    mean_of,
    resample_counts,
    resampled_kernel_distance,
)
from oar_lab.eval.frechet import Gaussian, frechet_distance
from oar_lab.eval.kid import squared_mmd

NONE = np.zeros((0, 0), dtype=np.int64)


def features(seed: int, count: int, width: int = 4, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def with_moments(samples: torch.Tensor, mean: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
    """Samples moved and stretched until their mean and covariance are these exactly."""
    centred = samples - samples.mean(0)
    factor = torch.linalg.cholesky(torch.cov(centred.T))
    return torch.linalg.solve_triangular(factor, centred.T, upper=False).T * deviation + mean


def test_gaussians_with_known_moments_have_the_closed_form() -> None:
    one, other = torch.tensor([0.0, 1.0, 2.0]).double(), torch.tensor([3.0, 1.0, 2.0]).double()
    wide, narrow = torch.tensor([2.0, 3.0, 1.0]).double(), torch.tensor([1.0, 5.0, 1.0]).double()
    real = with_moments(features(0, 50, 3), one, wide)
    fake = with_moments(features(1, 70, 3), other, narrow)
    found = FrechetReference(real).resampled(fake, NONE)
    assert found.value == pytest.approx(9 + (2 - 1) ** 2 + (3 - 5) ** 2)
    assert found.resamples == ()


@pytest.mark.parametrize(("num_real", "num_fake"), [(60, 50), (6, 50), (60, 6), (5, 6)])
def test_each_resample_is_the_distance_of_the_pictures_it_holds(num_real: int, num_fake: int) -> None:
    """On both sides of the number of features, where another of the two forms is taken."""
    real, fake = features(0, num_real, 8), features(1, num_fake, 8, shift=0.5)
    counts = resample_counts(num_fake, 3)
    found = FrechetReference(real).resampled(fake, counts)
    sets = [fake, *(fake.repeat_interleave(torch.from_numpy(row), dim=0) for row in counts)]
    direct = [frechet_distance(Gaussian.fit(part), Gaussian.fit(real)) for part in sets]
    assert [found.value, *found.resamples] == pytest.approx(direct, rel=1e-6)


def test_the_kernel_distance_is_its_definition_over_all_pairs() -> None:
    real, fake = features(0, 40), features(1, 30, shift=0.3)
    assert resampled_kernel_distance(real, fake, np.zeros((0, 30), dtype=np.int64)).value == pytest.approx(
        squared_mmd(real, fake)
    )


def test_a_kernel_resample_pairs_no_picture_with_itself() -> None:
    real, fake = features(0, 12), features(1, 6)
    counts = resample_counts(6, 4, seed=2)
    found = resampled_kernel_distance(real, fake, counts)

    def kernel(x: torch.Tensor, y: torch.Tensor) -> float:
        return (float(x @ y) / 4 + 1) ** 3

    for row, value in zip(counts, found.resamples):
        drawn = np.repeat(np.arange(6), row)
        pairs = [kernel(fake[i], fake[j]) for i in drawn for j in drawn if i != j]
        within = [kernel(real[i], real[j]) for i in range(12) for j in range(12) if i != j]
        across = [kernel(fake[i], part) for i in drawn for part in real]
        assert value == pytest.approx(np.mean(pairs) + np.mean(within) - 2 * np.mean(across))


def test_counts_are_those_of_drawing_with_replacement() -> None:
    counts = resample_counts(500, 20, seed=3)
    assert (counts.sum(1) == 500).all()
    assert (counts > 0).mean() == pytest.approx(1 - 1 / np.e, abs=0.01)
    assert np.array_equal(resample_counts(500, 30, seed=3)[:20], counts)
    assert not np.array_equal(resample_counts(500, 20, seed=4), counts)


@pytest.mark.parametrize("kind", ["frechet", "kernel"])
def test_intervals_cover_what_other_pictures_give(kind: str) -> None:
    """The truth is the mean of the figure over many sets of as many pictures; nine tenths of intervals hold it."""
    real = features(0, 2000)
    reference = FrechetReference(real)
    sets = [features(seed, 200, shift=0.4) for seed in range(1, 101)]
    counts = resample_counts(200, 100)

    def measure(fake: torch.Tensor) -> Resampled:
        if kind == "frechet":
            return reference.resampled(fake, counts)
        return resampled_kernel_distance(real[:200], fake, counts)

    found = [measure(fake) for fake in sets]
    truth = np.mean([figure.value for figure in found])
    covered = np.mean([figure.interval.low <= truth <= figure.interval.high for figure in found])
    assert 0.8 <= covered <= 0.97


def test_paired_differences_are_narrower_where_arms_go_together() -> None:
    """Two arms with the same luck, as pictures of the same prompts have it; their distances are the same as before."""
    shared = features(1, 300)
    one = shared + 0.1 * features(2, 300)
    other = 1.1 * shared + 0.1 * features(3, 300)
    reference = FrechetReference(features(0, 1000))
    paired_counts, other_counts = resample_counts(300, 200), resample_counts(300, 200, seed=1)
    base = reference.resampled(one, paired_counts)

    def width(counts: np.ndarray) -> float:
        change = reference.resampled(other, counts).against(base, lambda a, b: a - b).interval
        return change.high - change.low

    assert width(paired_counts) < 0.5 * width(other_counts)


def test_a_change_is_told_about_the_figures_themselves() -> None:
    """Resamples that all lie too high, as those of a Frechet distance do, move neither figure nor change."""
    base = Resampled(10.0, (12.0, 13.0, 14.0))
    arm = Resampled(8.0, (11.0, 12.0, 13.0))
    change = arm.against(base, lambda a, b: a / b - 1)
    assert change.value == pytest.approx(-0.2)
    assert change.interval.low < -0.2 < change.interval.high
    assert arm.against(base, lambda a, b: a - b).interval == pytest.approx((-2.0, -2.0))
    assert base.interval == pytest.approx((9.1, 10.9))


def test_seeds_of_an_arm_are_resampled_together() -> None:
    assert mean_of([Resampled(1.0, (0.0, 2.0)), Resampled(3.0, (4.0, 4.0))]) == Resampled(2.0, (2.0, 3.0))


def test_sides_that_share_their_prompts_are_no_nearer_for_it() -> None:
    """Picture k of both sides is of prompt k; without care, sets of one distribution would have a negative distance."""
    prompts = [4 * features(100 + seed, 60) for seed in range(100)]
    pairs = [(part + features(300 + i, 60), part + features(500 + i, 60)) for i, part in enumerate(prompts)]
    none = np.zeros((0, 60), dtype=np.int64)
    careless = [resampled_kernel_distance(*pair, none).value for pair in pairs]
    found = [resampled_kernel_distance(*pair, none, share_prompts=True).value for pair in pairs]
    error = np.std(found) / len(found) ** 0.5
    assert abs(np.mean(found)) < 3 * error
    assert np.mean(careless) < -10 * np.std(careless) / len(careless) ** 0.5
