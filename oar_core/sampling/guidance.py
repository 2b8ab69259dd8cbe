"""Classifier-free guidance (Ho and Salimans, arXiv 2207.12598), and how its scale changes while a picture is made."""

import math
from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class Schedule(NamedTuple):
    """`ramp` is the share of the way from 1 (no guidance) to the full scale after a share of the positions.

    Positions of a group have the share that was decoded before the group. Where the schedule is `by_rank`, each has the
    share before its own rank; `by_end`, all have the share that is decoded after the group.
    """

    ramp: Callable[[float], float]
    by_rank: bool = False
    by_end: bool = False


def _linear(share: float) -> float:
    return share


# `linear` is that of RandAR (arXiv 2412.01827), by rank that of LPD, by end that of ARPG: early positions, which decide
# what the picture is of, stay diverse.
_SCHEDULES = {
    "constant": Schedule(lambda share: 1.0),  # noqa: ARG005
    "linear": Schedule(_linear),
    "cosine": Schedule(lambda share: (1 - math.cos(math.pi * share)) / 2),
    "linear_by_rank": Schedule(_linear, by_rank=True),
    "linear_by_end": Schedule(_linear, by_end=True),
}
GUIDANCE_SCHEDULES = tuple(_SCHEDULES)


def scales_of(
    scale: float, schedule: str, interval: tuple[float, float], group: tuple[int, int], length: int
) -> tuple[float, ...]:
    """The scale of each rank from `group[0]` to `group[1]` - 1, which one step decodes, of a picture of `length`.

    A group before which a share of the picture was decoded that lies outside `interval` has 1, which is no guidance
    (Kynkaanniemi et al., arXiv 2404.07724). An interval ends without its second end, unless that is 1: then it holds
    the rest of the picture.
    """
    start, end = group
    low, high = interval
    if not low <= start / length < high:
        return (1.0,) * (end - start)
    ramp, by_rank, by_end = _SCHEDULES[schedule]
    counts = range(start, end) if by_rank else (end if by_end else start,) * (end - start)
    return tuple(1 + (scale - 1) * ramp(count / length) for count in counts)


def guide(
    conditional: Float[Tensor, "R G V"], unconditional: Float[Tensor, "R G V"], scale: Float[Tensor, "R"]
) -> Float[Tensor, "R G V"]:
    """`unconditional + scale (conditional - unconditional)`: 1 is the plain model, 0 ignores the condition."""
    return unconditional + scale[:, None, None] * (conditional - unconditional)
