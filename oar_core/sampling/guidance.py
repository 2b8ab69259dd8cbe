"""Classifier-free guidance (Ho and Salimans, arXiv 2207.12598)."""

from jaxtyping import Float
from torch import Tensor


def guide(
    conditional: Float[Tensor, "R G V"], unconditional: Float[Tensor, "R G V"], scale: Float[Tensor, "R"]
) -> Float[Tensor, "R G V"]:
    """`unconditional + scale (conditional - unconditional)`: 1 is the plain model, 0 ignores the condition."""
    return unconditional + scale[:, None, None] * (conditional - unconditional)
