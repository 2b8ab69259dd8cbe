"""What an order is."""

from collections.abc import Sequence


def is_permutation(order: Sequence[int]) -> bool:
    """Whether every position `0..len(order) - 1` occurs exactly once."""
    return sorted(order) == list(range(len(order)))
