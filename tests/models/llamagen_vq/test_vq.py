import pytest
import torch

from oar_core.models.llamagen_vq.checkpoint import llamagen_vq_state
from oar_core.models.load import family
from oar_core.models.vq_config import VqConfig
from tests.models.golden import Golden, stage_outputs

CONFIG = VqConfig(
    grid=(4, 4), width=32, multipliers=(1, 2), encoder_blocks=1, vocab_size=64, code_width=8, hidden_width=32
)
CLOSE = {"atol": 1e-5, "rtol": 0}


@pytest.fixture(scope="module")
def golden():
    return Golden.load("vq_llamagen")


@pytest.fixture(scope="module")
def tokenizer(golden):
    network = family("llamagen_vq").build_tokenizer("llamagen_vq", CONFIG.to_dict()).eval()
    network.load_state_dict(llamagen_vq_state(golden.state))
    return network


@torch.inference_mode()
def test_pictures_and_codes_are_those_of_their_own_code(tokenizer, golden):
    assert tokenizer.image_size == (8, 8)
    torch.testing.assert_close(tokenizer.decode(golden.tensor("codes")), golden.tensor("decoded"), **CLOSE)
    torch.testing.assert_close(tokenizer.encode(golden.tensor("image")), golden.tensor("encoded_indices"))


@torch.inference_mode()
def test_every_stage_is_theirs(tokenizer, golden):
    def run():
        tokenizer.decode(golden.tensor("codes"))
        tokenizer.encode(golden.tensor("image"))

    found = stage_outputs(tokenizer, golden, run)
    assert len(found) == 12
    for name, output in found.items():
        torch.testing.assert_close(output, golden.tensor(name), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_codes_are_looked_up_on_the_unit_sphere(tokenizer, golden):
    rows = tokenizer.quantize.lookup(torch.arange(CONFIG.vocab_size)[None])[0]
    torch.testing.assert_close(rows, golden.tensor("codebook_normalised"), **CLOSE)
    chosen = tokenizer.quantize.lookup(golden.tensor("encoded_indices")).transpose(1, 2).unflatten(2, CONFIG.grid)
    torch.testing.assert_close(chosen, golden.tensor("quantized"), **CLOSE)


@torch.inference_mode()
@pytest.mark.parametrize(("multipliers", "side"), [((1, 1, 2, 2, 4), 16), ((1, 2, 2, 4), 8), ((1, 2), 2), ((2,), 1)])
def test_the_levels_say_how_many_pixels_a_token_has(multipliers, side):
    config = {"grid": [2, 3], "width": 32, "multipliers": list(multipliers), "encoder_blocks": 1, "vocab_size": 64}
    network = family("llamagen_vq").build_tokenizer("llamagen_vq", config).eval()
    assert network.image_size == (2 * side, 3 * side)
    codes = torch.arange(6)[None]
    pictures = network.decode(codes)
    assert pictures.shape == (1, 3, 2 * side, 3 * side)
    assert network.encode(pictures).shape == (1, 6)


@torch.inference_mode()
def test_a_partial_picture_is_the_picture_once_all_is_known(tokenizer, golden):
    codes = golden.tensor("codes")
    known = torch.ones_like(codes, dtype=torch.bool)
    torch.testing.assert_close(tokenizer.decode_partial(codes, known), tokenizer.decode(codes), **CLOSE)
    known[:, 8:] = False
    other = torch.where(known, codes, (codes + 1) % CONFIG.vocab_size)
    torch.testing.assert_close(tokenizer.decode_partial(codes, known), tokenizer.decode_partial(other, known))


def test_the_published_sizes_have_their_numbers_of_parameters():
    with torch.device("meta"):
        networks = {
            "VQ-16": family("llamagen_vq").build_tokenizer("llamagen_vq", {}),
            "VQ-8": family("llamagen_vq").build_tokenizer("llamagen_vq", {"multipliers": [1, 2, 2, 4]}),
        }
    millions = {name: round(sum(p.numel() for p in net.parameters()) / 1e6, 1) for name, net in networks.items()}
    assert millions == {"VQ-16": 71.9, "VQ-8": 70.1}
