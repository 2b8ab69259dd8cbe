"""Group sizes that RandAR's authors decode with: a cosine, whose first step decodes one position."""

from itertools import pairwise
from math import cos, pi


def randar_groups(steps: int, length: int) -> tuple[int, ...]:
    """`1 - cos(pi/2 k/S)` of the positions are known after step k of S, counted from 1, and at least one more than
    before it. Sizes do not grow evenly."""
    ends = [0]
    for step in range(1, steps):
        share = 0.0 if step == 1 else 1 - cos(pi / 2 * step / steps)
        # At least one position now, and one for each step to come.
        ends.append(min(max(int(share * length + 1), ends[-1] + 1), length - (steps - step)))
    return tuple(end - start for start, end in pairwise([*ends, length]))
