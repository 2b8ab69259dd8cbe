"""The quantizer: nearest codes, straight-through gradients, and a codebook that stays in use."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from oar_core.models.oar.quantizer import Quantizer, nearest


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unit_vectors(count: int, width: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(count, width, generator=generator(seed)), dim=-1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_nearest_is_the_code_of_least_distance(seed: int) -> None:
    vectors, codes = unit_vectors(30, 5, seed), unit_vectors(12, 5, seed + 1)
    brute = (vectors[:, None] - codes[None]).square().sum(-1).argmin(-1)
    assert torch.equal(nearest(vectors, codes), brute)


def test_gradients_pass_straight_through_to_the_input() -> None:
    quantizer = Quantizer(16, 4)
    quantizer.initialize(unit_vectors(200, 4), generator())
    unit = unit_vectors(6, 4, 3).reshape(1, 6, 4).requires_grad_()
    weights = torch.randn(1, 6, 4, generator=generator(4))
    (quantizer(unit).codes * weights).sum().backward()
    # The gradient of a normalisation at a unit vector is the projection on its tangent plane.
    tangent = weights - (weights * unit).sum(-1, keepdim=True) * unit
    assert unit.grad is not None
    torch.testing.assert_close(unit.grad, tangent.detach(), atol=1e-5, rtol=1e-4)


def test_codes_are_unit_vectors_after_initialisation_and_updates() -> None:
    quantizer = Quantizer(32, 4)
    quantizer.initialize(unit_vectors(500, 4), generator())
    vectors = unit_vectors(64, 4, 1).reshape(1, 64, 4)
    for _ in range(3):
        quantizer.update(vectors, quantizer(vectors).token_ids, generator())
    torch.testing.assert_close(quantizer.codebook.norm(dim=-1), torch.ones(32))


def test_a_flat_background_does_not_take_the_codebook_over() -> None:
    """Nine of ten vectors are one and the same: seeds chosen by distance must spread over the rest."""
    background = unit_vectors(1, 4).expand(900, 4)
    quantizer = Quantizer(16, 4)
    quantizer.initialize(torch.cat([background, unit_vectors(100, 4, 1)]), generator())
    close = (quantizer.codebook @ background[0] > 0.999).sum()
    assert close <= 1


def test_codes_that_nobody_chooses_move_to_where_the_error_is_largest() -> None:
    quantizer = Quantizer(8, 3, decay=0.5)
    quantizer.codebook.copy_(unit_vectors(1, 3).expand(8, 3))
    quantizer.usage.fill_(1 / 8)
    quantizer.sums.copy_(quantizer.codebook / 8)
    vectors = unit_vectors(40, 3, 5).reshape(1, 40, 3)
    before = quantizer(vectors).commitment
    for step in range(30):
        quantizer.update(vectors, quantizer(vectors).token_ids, generator(step))
    assert quantizer(vectors).commitment < before / 4
    assert len(quantizer(vectors).token_ids.unique()) == 8
