import copy

import pytest
import torch

from oar_core.models.load import family
from oar_core.models.maskgit_vq.checkpoint import maskgit_vq_state
from oar_core.models.maskgit_vq.config import MaskGitVqConfig
from oar_core.nn.packed_conv import pack_convs
from tests.models.golden import Golden, stage_outputs

CONFIG = MaskGitVqConfig(grid=(4, 4), width=32, multipliers=(1, 2), num_blocks=1, vocab_size=64, code_width=32)
CLOSE = {"atol": 1e-5, "rtol": 0}


@pytest.fixture(scope="module")
def golden():
    return Golden.load("vq_maskgit")


@pytest.fixture(scope="module")
def tokenizer(golden):
    network = family("maskgit_vq").build_tokenizer("maskgit_vq", CONFIG.to_dict()).eval()
    network.load_state_dict(maskgit_vq_state(golden.state))
    return network


@torch.inference_mode()
def test_pictures_and_codes_are_those_of_their_own_code(tokenizer, golden):
    assert tokenizer.image_size == (8, 8)
    decoded = tokenizer.decode(golden.tensor("codes")).add(1).div(2)
    torch.testing.assert_close(decoded, golden.tensor("decoded_clamped"), **CLOSE)
    image = golden.tensor("image") * 2 - 1
    torch.testing.assert_close(tokenizer.encode(image), golden.tensor("encoded_indices"))


@torch.inference_mode()
def test_every_stage_is_theirs(tokenizer, golden):
    def run():
        tokenizer.decode(golden.tensor("codes"))
        tokenizer.encode(golden.tensor("image") * 2 - 1)

    found = stage_outputs(tokenizer, golden, run)
    assert len(found) == 8
    for name, output in found.items():
        torch.testing.assert_close(output, golden.tensor(name), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_a_partial_picture_is_the_picture_once_all_is_known(tokenizer, golden):
    codes = golden.tensor("codes")
    known = torch.ones_like(codes, dtype=torch.bool)
    torch.testing.assert_close(tokenizer.decode_partial(codes, known), tokenizer.decode(codes), **CLOSE)
    known[:, 8:] = False
    other = torch.where(known, codes, (codes + 1) % CONFIG.vocab_size)
    torch.testing.assert_close(tokenizer.decode_partial(codes, known), tokenizer.decode_partial(other, known))


@torch.inference_mode()
def test_convolutions_laid_out_for_the_machine_give_the_same(tokenizer, golden):
    packed = copy.deepcopy(tokenizer).to(memory_format=torch.channels_last)
    pack_convs(packed)
    decoded = packed.decode(golden.tensor("codes")).add(1).div(2)
    torch.testing.assert_close(decoded, golden.tensor("decoded_clamped"), **CLOSE)


def test_the_published_size_has_its_number_of_parameters_and_keys():
    with torch.device("meta"):
        network = family("maskgit_vq").build_tokenizer("maskgit_vq", {})
    assert len(network.state_dict()) == 168
    assert round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 1) == 54.5
    assert network.image_size == (256, 256)
