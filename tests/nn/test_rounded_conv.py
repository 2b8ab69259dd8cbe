import pytest
import torch
from torch import nn

from oar_core.nn.rounded_conv import RoundedConv2d, round_convs

ULP = 2.0**-7  # of a bf16 number, at most, relative to it


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(5)


def pictures(count: int, channels: int) -> torch.Tensor:
    return torch.randn(count, channels, 9, 7).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_a_rounded_convolution_is_what_autocast_gives(stride: int, bias: bool) -> None:
    conv, x = nn.Conv2d(12, 20, 3, stride, padding=1, bias=bias), pictures(3, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        wanted, got = conv(x), RoundedConv2d(conv)(x)
    assert got.dtype == wanted.dtype == torch.bfloat16
    torch.testing.assert_close(got, wanted, rtol=ULP, atol=1e-5)
    # Most are the same to the last bit: only where additions in another order cross a rounding are they not.
    assert (got == wanted).float().mean() > 0.98


@torch.inference_mode()
def test_it_rounds_what_it_reads_and_what_it_gives() -> None:
    conv, x = nn.Conv2d(4, 4, 1, bias=False), pictures(2, 4)
    got = RoundedConv2d(conv)(x)
    exact = nn.functional.conv2d(x.bfloat16().double(), conv.weight.bfloat16().double())
    torch.testing.assert_close(got.double(), exact, rtol=ULP, atol=1e-6)
    assert not torch.equal(got.float(), conv(x))


def test_every_convolution_of_a_network_is_replaced() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()))
    round_convs(net)
    assert sum(isinstance(module, RoundedConv2d) for module in net.modules()) == 2
    assert not any(isinstance(module, nn.Conv2d) for module in net.modules())
