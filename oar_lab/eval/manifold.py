"""Improved precision and recall (Kynkaanniemi et al. 2019, arXiv 1904.06991): fidelity and variety apart."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from oar_lab.eval.distances import distance_rows


@dataclass(frozen=True)
class PrecisionRecall:
    precision: float  # share of generated pictures that lie within the real manifold
    recall: float  # share of real pictures that lie within the generated manifold


def precision_recall(real: Float[Tensor, "M D"], fake: Float[Tensor, "N D"], *, neighbours: int = 3) -> PrecisionRecall:
    """A manifold is the union of balls around its samples that reach to each one's k-th nearest fellow.

    Both sides should hold the same number of samples, more than `neighbours`: balls shrink as samples grow in number.
    """
    real, fake = real.double(), fake.double()
    return PrecisionRecall(
        precision=_inside(fake, real, neighbours).double().mean().item(),
        recall=_inside(real, fake, neighbours).double().mean().item(),
    )


def _inside(samples: Float[Tensor, "M D"], manifold: Float[Tensor, "N D"], neighbours: int) -> Bool[Tensor, "M"]:
    radii = kth_neighbour(manifold, neighbours)
    return torch.cat([(rows <= radii).any(1) for rows in distance_rows(samples, manifold)])


def kth_neighbour(samples: Float[Tensor, "N D"], neighbours: int) -> Float[Tensor, "N"]:
    """The distance from each sample to its k-th nearest other one; a sample is its own zeroth neighbour."""
    return torch.cat([rows.kthvalue(neighbours + 1, dim=1).values for rows in distance_rows(samples, samples)])
