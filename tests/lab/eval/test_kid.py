"""The kernel distance against its definition."""

import math

import pytest
import torch

from oar_lab.eval.kid import kernel_distance, squared_mmd


def features(seed: int, count: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(seed)) + shift


def test_the_estimate_is_its_definition_written_out() -> None:
    real, fake = features(0, 5).double(), features(1, 7).double()

    def kernel(x: torch.Tensor, y: torch.Tensor) -> float:
        return (float(x @ y) / 4 + 1) ** 3

    def within(side: torch.Tensor) -> float:
        pairs = [kernel(x, y) for i, x in enumerate(side) for j, y in enumerate(side) if i != j]
        return sum(pairs) / len(pairs)

    across = sum(kernel(x, y) for x in real for y in fake) / 35
    assert squared_mmd(real, fake) == pytest.approx(within(real) + within(fake) - 2 * across)


def test_samples_of_one_distribution_are_zero_within_the_error() -> None:
    result = kernel_distance(features(0, 4000), features(1, 4000), block_size=200)
    assert result.num_blocks == 20
    assert abs(result.value) < 3 * result.standard_error


def test_a_shift_is_seen_far_beyond_the_error() -> None:
    result = kernel_distance(features(0, 2000), features(1, 2000, shift=0.5), block_size=200)
    assert result.value > 10 * result.standard_error > 0


def test_the_error_is_that_of_independent_blocks() -> None:
    result = kernel_distance(features(0, 90), features(1, 70), block_size=10)
    assert result.num_blocks == 7
    assert math.isfinite(result.standard_error)
    assert kernel_distance(features(0, 90), features(1, 70), block_size=10) == result


def test_few_samples_make_smaller_blocks() -> None:
    assert kernel_distance(features(0, 40), features(1, 30), block_size=500).num_blocks == 5
    single = kernel_distance(features(0, 3), features(1, 3))
    assert (single.num_blocks, single.standard_error) == (1, 0.0)
