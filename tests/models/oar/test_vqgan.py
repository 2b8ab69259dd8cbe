"""The VQGAN: shapes of any grid, and the painting of unfinished grids."""

from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

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


@pytest.mark.parametrize("full_blocks", [0, 2])
def test_a_decoder_without_transposed_convolutions_paints_the_same_shapes(full_blocks: int) -> None:
    model = VQGAN(replace(WIDE, upsample="nearest", full_blocks=full_blocks)).eval()
    assert not [module for module in model.modules() if isinstance(module, nn.ConvTranspose2d)]
    pixels = model.decode(model.encode(images()))
    assert pixels.shape == (3, 3, 8, 12)
    known = torch.tensor([[True, False, True, False, False, True]]).expand(3, 6)
    model(images(), known).images.square().mean().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_blocks_at_full_resolution_come_last() -> None:
    plain, full = (VQGAN(replace(WIDE, full_blocks=count)).decoder.stages for count in (0, 2))
    assert len(full) == len(plain) + 2
    assert [type(module) for module in full[: len(plain)]] == [type(module) for module in plain]


def test_a_config_from_before_there_was_a_choice_gives_the_network_of_then() -> None:
    """Stored configs do not name the fields, and stored weights have the names of transposed convolutions."""
    stored = {name: value for name, value in asdict(WIDE).items() if name not in {"upsample", "full_blocks"}}
    config = TokenizerConfig.from_dict(stored)
    assert config == WIDE
    blocks = config.decoder_blocks
    doubling = [1 + blocks, 2 + 2 * blocks]
    stages = VQGAN(config).decoder.stages
    assert [number for number, stage in enumerate(stages) if isinstance(stage, nn.ConvTranspose2d)] == doubling
    assert len(stages) == doubling[-1] + 1


@pytest.mark.parametrize(("field", "value"), [("upsample", "bilinear"), ("full_blocks", -1)])
def test_a_decoder_that_does_not_exist_is_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        replace(WIDE, **{field: value})
