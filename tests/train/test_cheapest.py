"""The order that costs least: what depends on each other is told apart, and nothing gets dearer."""

import pytest
import torch

from oar_core.train.cheapest import cheapest_order, position_covariance, schedule_nats

LENGTH, WIDTH = 8, 3


def vectors(count: int = 4000) -> torch.Tensor:
    """Positions p and p + 4 are nearly the same; the others do not depend on each other."""
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(count, LENGTH // 2, WIDTH, generator=generator)
    return torch.cat([half, half + 0.3 * torch.randn(half.shape, generator=generator)], dim=1)


def test_one_a_step_costs_the_same_in_every_order() -> None:
    covariance = position_covariance(vectors(), torch.zeros(4000, 0), num_axes=2)
    one = (1,) * LENGTH
    nats = [
        schedule_nats(covariance, order, one)
        for order in (range(LENGTH), range(LENGTH)[::-1], (3, 7, 1, 5, 0, 4, 2, 6))
    ]
    assert nats[1:] == pytest.approx([nats[0]] * 2)
    flat = covariance.reshape(LENGTH * 2, LENGTH * 2)
    assert nats[0] == pytest.approx(0.5 * torch.linalg.slogdet(flat).logabsdet.item())


def test_twins_come_in_different_steps() -> None:
    covariance = position_covariance(vectors(), torch.zeros(4000, 0))
    start = (0, 4, 1, 5, 2, 6, 3, 7)
    order = cheapest_order(covariance, start, (4, 4), num_trials=300)
    assert sorted(order) == list(range(LENGTH))
    assert {position % 4 for position in order[:4]} == set(range(4))
    ranked = [schedule_nats(covariance, one, (4, 4)) for one in (order, start)]
    assert ranked[0] < ranked[1] - 1
    assert ranked[0] >= schedule_nats(covariance, order, (1,) * LENGTH)


def test_what_the_condition_tells_is_no_dependence() -> None:
    generator = torch.Generator().manual_seed(1)
    condition = torch.randint(2, (4000, 1), generator=generator).float()
    told = condition[:, :, None] + 0.2 * torch.randn(4000, LENGTH, WIDTH, generator=generator)
    for conditions, is_free in ((condition, True), (torch.zeros(4000, 0), False)):
        covariance = position_covariance(told, conditions)
        together, alone = (schedule_nats(covariance, range(LENGTH), sizes) for sizes in ((LENGTH,), (1,) * LENGTH))
        assert (together - alone < 0.1) == is_free
