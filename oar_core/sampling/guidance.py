"""Classifier-free guidance (Ho and Salimans, arXiv 2207.12598), and how its scale changes while a picture is made."""

import math
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

# Share of the way from 1 (no guidance) to the full scale after a share t of the positions. `linear` is that of RandAR
# (arXiv 2412.01827) and LPD: early positions, which decide what the picture is of, stay diverse.
_RAMPS: dict[str, Callable[[float], float]] = {
    "constant": lambda t: 1.0,  # noqa: ARG005
    "linear": lambda t: t,
    "cosine": lambda t: (1 - math.cos(math.pi * t)) / 2,
}


def scale_at(scale: float, schedule: str, interval: tuple[float, float], share: float) -> float:
    """The scale for positions before which a share of the picture was decoded.

    Outside `interval`, from its first end up to and without its second, it is 1: no guidance (Kynkaanniemi et al.,
    arXiv 2404.07724). An interval that ends with 1 holds the rest of the picture.
    """
    low, high = interval
    is_inside = low <= share and (share < high or high == 1)
    return 1 + (scale - 1) * _RAMPS[schedule](share) if is_inside else 1.0


def guide(
    conditional: Float[Tensor, "R G V"], unconditional: Float[Tensor, "R G V"], scale: Float[Tensor, "R"]
) -> Float[Tensor, "R G V"]:
    """`unconditional + scale (conditional - unconditional)`: 1 is the plain model, 0 ignores the condition."""
    return unconditional + scale[:, None, None] * (conditional - unconditional)
