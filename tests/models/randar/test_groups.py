"""Group sizes as RandAR's own sampler prints them."""

import pytest

from oar_core.models.randar.groups import randar_groups

# fmt: off
SIZES = {
    32: (1, 1, 1, 2, 3, 4, 3, 5, 5, 6, 6, 7, 7, 8, 8, 8, 10, 9, 10, 10, 11, 11, 11, 12, 11, 12, 12, 13, 12, 12, 13, 12),
    64: (1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 3, 2, 2, 3, 3, 3, 3, 3, 3, 4, 3, 4, 4, 4, 4, 4, 4, 4, 5, 5, 4, 5, 5,
         5, 5, 5, 6, 5, 5, 6, 5, 6, 6, 6, 5, 6, 6, 6, 6, 6, 6, 7, 6, 6, 6, 6, 7, 6, 6, 6),
    88: (1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 2, 3, 2, 3, 3, 2,
         3, 3, 3, 3, 3, 3, 3, 4, 3, 3, 4, 3, 4, 3, 4, 4, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 5, 4, 4, 4, 5, 4, 4, 5, 4,
         5, 4, 5, 4, 5, 4, 5, 4, 5, 4, 5, 4, 5, 4),
}
# fmt: on


@pytest.mark.parametrize("steps", SIZES)
def test_groups_are_those_that_its_authors_decode_with(steps: int) -> None:
    assert randar_groups(steps, 256) == SIZES[steps]


@pytest.mark.parametrize("length", [1, 2, 16, 256])
def test_every_number_of_steps_decodes_every_position(length: int) -> None:
    for steps in range(1, length + 1):
        sizes = randar_groups(steps, length)
        assert (len(sizes), sum(sizes), min(sizes) >= 1) == (steps, length, True)
