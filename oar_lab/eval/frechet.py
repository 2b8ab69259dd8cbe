"""Frechet distance of Gaussians fitted to features (Dowson and Landau 1982; Heusel et al. 2017, arXiv 1706.08500).

On the features of this project's own evaluator it is called FD-eval: it is no FID, and compares with no published one.
"""

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Gaussian:
    """Mean and unbiased covariance, fp64."""

    mean: Float[Tensor, "D"]
    covariance: Float[Tensor, "D D"]

    @classmethod
    def fit(cls, features: Float[Tensor, "M D"]) -> Self:
        """Fits at least two samples."""
        assert len(features) > 1, "a covariance needs two samples"
        samples = features.double()
        mean = samples.mean(0)
        centred = samples - mean
        return cls(mean, centred.T @ centred / (len(samples) - 1))


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """|m1 - m2|^2 + tr(C1) + tr(C2) - 2 tr((C1^1/2 C2 C1^1/2)^1/2): squared, never negative, 0 for equal ones.

    The product under the root is symmetric in this form, so the root's trace is a sum over real eigenvalues, also where
    a covariance has no full rank.
    """
    root = symmetric_sqrt(first.covariance)
    eigenvalues = torch.linalg.eigvalsh(root @ second.covariance @ root)
    cross = eigenvalues.clamp(min=0).sqrt().sum()
    means = (first.mean - second.mean).square().sum()
    distance = means + first.covariance.trace() + second.covariance.trace() - 2 * cross
    return max(0.0, distance.item())


def symmetric_sqrt(matrix: Float[Tensor, "D D"]) -> Float[Tensor, "D D"]:
    """The positive semidefinite root; eigenvalues that rounding made negative count as 0."""
    eigenvalues, vectors = torch.linalg.eigh(matrix)
    return (vectors * eigenvalues.clamp(min=0).sqrt()) @ vectors.T
