"""Group sizes that ARPG's authors decode with: the schedule that they call arccos."""

from math import acos, pi


def arpg_groups(steps: int, length: int) -> tuple[int, ...]:
    """Sizes that do not grow evenly: each step leaves `acos(t) / (pi / 2)` of the positions, cut to an integer."""
    sizes: list[int] = []
    left = length
    for step in range(1, steps + 1):
        later = steps - step
        share = acos(step / steps) / (pi / 2)
        # At least one position now, and one for each step to come; the last takes all.
        after = min(max(int(length * share), later), left - 1) if later else 0
        sizes.append(left - after)
        left = after
    return tuple(sizes)
