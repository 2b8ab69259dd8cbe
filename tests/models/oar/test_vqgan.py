"""The VQGAN: shapes of any grid, and the painting of unfinished grids."""

import pytest
import torch

from oar_core.config import TokenizerConfig
from oar_core.errors import ConfigError
from oar_core.models.oar.vqgan import VQGAN

WIDE = TokenizerConfig(image_size=(8, 12), widths=(8, 16), head_width=8, vocab_size=32, code_width=4)


@pytest.fixture
def vqgan() -> VQGAN:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VQGAN(WIDE).eval()
    generator = torch.Generator().manual_seed(0)
    model.quantizer.initialize(torch.randn(500, 4, generator=generator), generator)
    return model


def images(count: int = 3) -> torch.Tensor:
    return torch.rand(count, 3, 8, 12, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_ids_run_over_a_grid_that_need_not_be_square(vqgan: VQGAN) -> None:
    token_ids = vqgan.encode(images())
    assert vqgan.grid == (2, 3)
    assert token_ids.shape == (3, 6)
    assert int(token_ids.min()) >= 0
    assert int(token_ids.max()) < 32


def test_decode_gives_pixels_in_range(vqgan: VQGAN) -> None:
    pixels = vqgan.decode(vqgan.encode(images()))
    assert pixels.shape == (3, 3, 8, 12)
    assert pixels.abs().max().item() <= 1


def test_a_partial_grid_with_everything_known_is_the_whole(vqgan: VQGAN) -> None:
    token_ids = vqgan.encode(images())
    assert torch.equal(vqgan.decode_partial(token_ids, torch.ones(3, 6, dtype=torch.bool)), vqgan.decode(token_ids))


def test_ids_at_unknown_positions_are_not_read(vqgan: VQGAN) -> None:
    token_ids = vqgan.encode(images())
    known = torch.tensor([[True, False, True, False, False, True]]).expand(3, 6)
    nonsense = torch.where(known, token_ids, -7)
    assert torch.equal(vqgan.decode_partial(nonsense, known), vqgan.decode_partial(token_ids, known))


def test_the_training_pass_reconstructs_what_decode_paints(vqgan: VQGAN) -> None:
    result = vqgan(images())
    torch.testing.assert_close(result.images.clamp(-1, 1), vqgan.decode(result.quantized.token_ids))


def test_every_parameter_takes_a_gradient(vqgan: VQGAN) -> None:
    known = torch.tensor([[True, False, True, False, False, True]]).expand(3, 6)
    vqgan(images(), known).images.square().mean().backward()
    assert [name for name, parameter in vqgan.named_parameters() if parameter.grad is None] == []


def test_an_image_size_that_the_patch_does_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of 8"):
        TokenizerConfig(image_size=(60, 64))
