"""Euclidean distances between two sets of vectors, in pieces that fit into memory."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

CHUNK = 1024


def distance_rows(left: Float[Tensor, "M D"], right: Float[Tensor, "N D"]) -> Iterator[Float[Tensor, "m N"]]:
    """Rows of the distance matrix, `CHUNK` at a time, by |a|^2 + |b|^2 - 2 a.b in the vectors' own precision.

    Vectors are moved to the mean of `right` first: near a common offset the formula would lose its digits.
    """
    centre = right.mean(0)
    left, right = left - centre, right - centre
    norms = right.square().sum(1)
    for part in left.split(CHUNK):
        squares = torch.addmm(norms.expand(len(part), -1), part, right.T, alpha=-2)
        yield (squares + part.square().sum(1, keepdim=True)).clamp_(min=0).sqrt_()


def nearest_rows(left: Float[Tensor, "M D"], right: Float[Tensor, "N D"]) -> Float[Tensor, "M"]:
    """The distance from each vector on the left to the closest on the right."""
    return torch.cat([rows.amin(1) for rows in distance_rows(left, right)])
