"""Convolutions in bf16 on a CPU that has no instructions for it."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from oar_core.nn.packed import replace_layers


class RoundedConv2d(nn.Module):
    """A convolution of numbers that are rounded to bf16, summed in fp32 and rounded again.

    That is what bf16 means wherever hardware has it, so the results are the same but for the order of additions.
    PyTorch's own way takes ten times as long on a CPU with AVX2 alone. The weights are not to change afterwards.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight = _rounded(conv.weight.detach())
        self.bias = None if conv.bias is None else _rounded(conv.bias.detach())
        self._stride, self._padding = conv.stride, conv.padding
        assert (conv.groups, conv.dilation) == (1, (1, 1)), "a plain convolution"

    def forward(self, x: Float[Tensor, "B D h w"]) -> Float[Tensor, "B D2 h2 w2"]:
        with torch.autocast(x.device.type, enabled=False):
            sums = nn.functional.conv2d(_rounded(x), self.weight, self.bias, self._stride, self._padding)
        return sums.bfloat16()


def _rounded(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    return x.bfloat16().float()


def has_bf16(device: torch.device) -> bool:
    """Tells whether PyTorch convolves in bf16 by the hardware."""
    return device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def round_convs(module: nn.Module) -> None:
    """Puts rounded convolutions in the place of the network's."""
    replace_layers(module, lambda m: isinstance(m, nn.Conv2d), lambda m: RoundedConv2d(cast(nn.Conv2d, m)))
