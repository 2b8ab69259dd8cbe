import pytest
import torch

from oar_core.models.llamagen_vq.checkpoint import native_state
from oar_core.models.llamagen_vq.config import VqConfig
from oar_core.models.load import family
from tests.models.golden import Golden

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
    network.load_state_dict(native_state(golden.state))
    return network


@torch.inference_mode()
def test_pictures_and_codes_are_those_of_their_own_code(tokenizer, golden):
    assert tokenizer.image_size == (8, 8)
    torch.testing.assert_close(tokenizer.decode(golden.tensor("codes")), golden.tensor("decoded"), **CLOSE)
    torch.testing.assert_close(tokenizer.encode(golden.tensor("image")), golden.tensor("encoded_indices"))


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
