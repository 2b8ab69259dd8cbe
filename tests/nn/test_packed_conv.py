import copy

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from oar_core.config import TokenizerConfig
from oar_core.models.oar.vqgan import VQGAN
from oar_core.nn.packed_conv import MOST_PICTURES, PackedConv2d, pack_convs

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch has no oneDNN here")

TINY = TokenizerConfig((32, 32), (16, 32), encoder_blocks=1, decoder_blocks=1, head_width=8, vocab_size=32)


@pytest.fixture
def plain() -> VQGAN:
    torch.manual_seed(3)
    tokenizer = VQGAN(TINY)
    for parameter in tokenizer.parameters():
        nn.init.normal_(parameter, std=0.1)
    return tokenizer.to(memory_format=torch.channels_last).eval()  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("pictures", [1, MOST_PICTURES, MOST_PICTURES + 1])
def test_a_packed_convolution_is_the_convolution(pictures: int, stride: int) -> None:
    conv = nn.Conv2d(12, 20, 3, stride=stride, padding=1)
    x = torch.randn(pictures, 12, 8, 10).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        torch.testing.assert_close(PackedConv2d(conv)(x), conv(x), rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_weights_are_laid_out_once_for_each_size_of_pictures() -> None:
    conv = nn.Conv2d(12, 20, 3, padding=1)
    packed = PackedConv2d(conv)
    for size, lays_out in (((8, 10), True), ((16, 4), True), ((8, 10), False), ((16, 4), False)):
        x = torch.randn(1, 12, *size).contiguous(memory_format=torch.channels_last)
        with profile(activities=[ProfilerActivity.CPU]) as calls:
            y = packed(x)
        torch.testing.assert_close(y, conv(x), rtol=1e-4, atol=1e-5)
        names = {call.key for call in calls.key_averages()}
        assert ("aten::mkldnn_reorder_conv2d_weight" in names) is lays_out


@torch.inference_mode()
def test_a_packed_decoder_paints_the_same_and_keeps_the_names_of_its_tensors(plain: VQGAN) -> None:
    packed = copy.deepcopy(plain)
    pack_convs(packed)
    assert any(isinstance(module, PackedConv2d) for module in packed.decoder.modules())
    assert packed.state_dict().keys() == plain.state_dict().keys()
    token_ids = torch.randint(TINY.vocab_size, (5, 64))
    for pictures in (1, MOST_PICTURES, 5):
        ids = token_ids[:pictures]
        torch.testing.assert_close(packed.decode(ids), plain.decode(ids), rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_a_packed_decoder_can_be_copied(plain: VQGAN) -> None:
    pack_convs(plain)
    token_ids = torch.randint(TINY.vocab_size, (1, 64))
    twin = copy.deepcopy(plain)
    assert torch.equal(twin.decode(token_ids), plain.decode(token_ids))
    assert not any(one is other for one, other in zip(twin.parameters(), plain.parameters(), strict=True))


@torch.inference_mode()
def test_a_picture_alone_is_the_same_to_the_last_bit_each_time(plain: VQGAN) -> None:
    pack_convs(plain)
    token_ids = torch.randint(TINY.vocab_size, (1, 64))
    first = plain.decode(token_ids)
    plain.decode(torch.randint(TINY.vocab_size, (4, 64)))
    assert torch.equal(plain.decode(token_ids), first)


def test_other_number_formats_are_left_alone(plain: VQGAN) -> None:
    half = plain.to(torch.bfloat16)
    pack_convs(half)
    assert not any(isinstance(module, PackedConv2d) for module in half.modules())
