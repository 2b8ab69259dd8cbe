"""Bootstrap intervals of distances (Efron 1979): how far figures would move with other pictures of the model.

Pictures are drawn again with replacement, with the same counts for every arm that has as many. Picture k of two
arms has the same prompt and the same noise, so most of what chance does to one it does to the other, and the difference
of two arms is known far better than either. The reference side stays as it is.

A resample holds 63 % of the pictures, some of them several times, and a Frechet distance grows as pictures get fewer.
So the resamples tell how a figure spreads and not where it lies: they are moved until their mean is the figure itself.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from oar_lab.eval.kid import cubic_kernel

LOW, HIGH = 0.05, 0.95
CHUNK = 512

Matrix = Float[np.ndarray, "M D"]


class Interval(NamedTuple):
    low: float
    high: float


class Resampled(NamedTuple):
    """A figure, and its value in each resample."""

    value: float
    resamples: tuple[float, ...]

    @property
    def interval(self) -> Interval:
        """The middle 90 %, moved to the figure."""
        low, high = np.quantile(self._centred, (LOW, HIGH))
        return Interval(float(low), float(high))

    @property
    def _centred(self) -> Float[np.ndarray, "R"]:
        values = np.array(self.resamples)
        return values - values.mean() + self.value

    def against(self, base: Self, change: Callable[[float, float], float]) -> "Resampled":
        """A change from `base` to this, such as a difference or a ratio, resample by resample."""
        assert len(self.resamples) == len(base.resamples), "paired figures have the same resamples"
        pairs = zip(self._centred.tolist(), base._centred.tolist())
        return Resampled(change(self.value, base.value), tuple(change(*pair) for pair in pairs))


def mean_of(figures: Sequence[Resampled]) -> Resampled:
    """Mean of several seeds of an arm, which have the same prompts: a prompt is drawn again with all its pictures."""
    return Resampled(
        sum(figure.value for figure in figures) / len(figures),
        tuple(np.mean([figure.resamples for figure in figures], axis=0).tolist()),
    )


def resample_counts(num_pictures: int, num_resamples: int, seed: int = 0) -> Int[np.ndarray, "R M"]:
    """Counts of each picture in each resample. More resamples begin with the fewer."""
    generator = torch.Generator().manual_seed(seed)
    drawn = (torch.randint(num_pictures, (num_pictures,), generator=generator) for _ in range(num_resamples))
    counts = [torch.bincount(indices, minlength=num_pictures).numpy() for indices in drawn]
    return np.stack(counts) if counts else np.zeros((0, num_pictures), dtype=np.int64)


class FrechetReference:
    """The reference's side of Frechet distances, worked out once.

    With C = F F^T, the trace of the root of C^1/2 C' C^1/2 is the sum of the roots of the eigenvalues of F^T C' F, and
    these are the squared singular values of the centred pictures times F, on whichever side of them is the smaller.
    Products are left to numpy, whose A^T A takes half the time of a general one.
    """

    def __init__(self, features: Float[Tensor, "M D"]) -> None:
        samples = _double(features)
        self._mean = samples.mean(0)
        centred = (samples - self._mean) / np.sqrt(len(samples) - 1)
        self._trace = float(np.square(centred).sum())
        self._factor = centred.T if len(samples) <= samples.shape[1] else _root(centred.T @ centred)

    def resampled(self, features: Float[Tensor, "M D"], counts: Int[np.ndarray, "R M"]) -> Resampled:
        """The distance of the pictures as they are, and in each resample."""
        samples = _double(features) - self._mean
        turned = samples @ self._factor
        once = np.ones(len(samples), dtype=np.int64)
        value, *others = (self._distance(samples, turned, row) for row in (once, *counts))
        return Resampled(value, tuple(others))

    def _distance(self, samples: Matrix, turned: Matrix, counts: Int[np.ndarray, "M"]) -> float:
        """`samples` lie about the reference's mean; `turned` are they times the factor."""
        total, kept = counts.sum(), counts > 0
        weights = np.sqrt(counts[kept] / (total - 1))[:, None]
        mean = counts @ samples / total
        trace = np.square((samples[kept] - mean) * weights).sum()
        across = (turned[kept] - counts @ turned / total) * weights
        gram = across.T @ across if across.shape[0] >= across.shape[1] else across @ across.T
        roots = np.sqrt(np.linalg.eigvalsh(gram).clip(min=0)).sum()
        return max(0.0, float(np.square(mean).sum() + trace + self._trace - 2 * roots))


def resampled_kernel_distance(
    real: Float[Tensor, "M D"],
    fake: Float[Tensor, "N D"],
    counts: Int[np.ndarray, "R N"],
    *,
    share_prompts: bool = False,
) -> Resampled:
    """The unbiased squared maximum mean discrepancy over all pairs (KID without blocks), and in each resample.

    A picture is never paired with itself, also where a resample has it twice: that keeps resamples unbiased. Where
    picture k of both sides has the same prompt (`share_prompts`, N = M), those two are not paired either: they are
    alike beyond what two pictures of the sides are, and would make the distance negative.
    """
    assert not share_prompts or len(real) == len(fake), "picture k of one side belongs to picture k of the other"
    real, fake = real.double(), fake.double()
    weights = torch.from_numpy(np.vstack([np.ones((1, len(fake)), dtype=np.int64), counts])).double()
    totals = weights.sum(1)
    within_real = sum(_off_diagonal_sum(part, real, first) for first, part in _chunks(real)) / (
        len(real) * (len(real) - 1)
    )
    across, within = torch.zeros(len(weights)).double(), torch.zeros(len(weights)).double()
    for first, part in _chunks(fake):
        rows = weights[:, first : first + len(part)]
        across += rows @ _mean_across(part, real, first if share_prompts else None)
        kernel = cubic_kernel(part, fake)
        kernel[torch.arange(len(part)), first + torch.arange(len(part))] = 0
        within += (rows * (weights @ kernel.T)).sum(1)
    pairs = totals.square() - weights.square().sum(1)
    values = (within_real + within / pairs - 2 * across / totals).tolist()
    return Resampled(values[0], tuple(values[1:]))


def _off_diagonal_sum(part: Float[Tensor, "m D"], everything: Float[Tensor, "M D"], first: int) -> float:
    kernel = cubic_kernel(part, everything)
    rows = torch.arange(len(part))
    return (kernel.sum() - kernel[rows, first + rows].sum()).item()


def _mean_across(part: Float[Tensor, "m D"], real: Float[Tensor, "M D"], first: int | None) -> Float[Tensor, "m"]:
    """Means of each picture with all real ones, except that of its own prompt where `first` numbers the pictures."""
    kernel = cubic_kernel(part, real)
    if first is None:
        return kernel.mean(1)
    rows = torch.arange(len(part))
    return (kernel.sum(1) - kernel[rows, first + rows]) / (len(real) - 1)


def _chunks(features: Float[Tensor, "M D"]) -> list[tuple[int, Float[Tensor, "m D"]]]:
    return [(number * CHUNK, part) for number, part in enumerate(features.split(CHUNK))]


def _double(features: Float[Tensor, "M D"]) -> Matrix:
    return features.double().numpy()


def _root(covariance: Float[np.ndarray, "D D"]) -> Float[np.ndarray, "D D"]:
    """F with F F^T = covariance."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(values.clip(min=0))
