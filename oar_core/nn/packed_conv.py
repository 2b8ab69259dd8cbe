"""Convolutions of one or two pictures as a CPU computes them fastest."""

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from oar_core.nn.packed import can_pack, replace_layers

MOST_PICTURES = 2


class PackedConv2d(nn.Module):
    """A convolution whose weights are laid out for oneDNN once for each size of pictures, not at each call.

    Same numbers but for the order of additions. Laying out takes as long whatever the batch is: a fifth of the time of
    a tokenizer's decoder for one picture, nothing that shows for eight, whose layout is another one. So more than
    `MOST_PICTURES` take the weights as they are. The weights are not to change afterwards.

    The layout has to know the size: one that was chosen without is another on a CPU without AVX-512, where it is then
    changed at each call, which takes ten times as long as the convolution.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self._conv = (conv.padding, conv.stride, conv.dilation, conv.groups)
        self._packed: dict[torch.Size, Tensor] = {}  # by a picture's channels, height and width

    def _pack(self, picture: torch.Size) -> Tensor:
        weight = self.weight.detach().to_mkldnn()
        return torch._C._nn.mkldnn_reorder_conv2d_weight(weight, *self._conv, (1, *picture))  # pyright: ignore[reportAttributeAccessIssue]

    def __getstate__(self) -> dict[str, Any]:
        """Weights that are laid out can be neither copied nor pickled."""
        return self.__dict__ | {"_packed": {}}

    def forward(self, x: Float[Tensor, "B D h w"]) -> Float[Tensor, "B D h w"]:
        if len(x) > MOST_PICTURES:
            padding, stride, dilation, groups = self._conv
            return nn.functional.conv2d(x, self.weight, self.bias, stride, padding, dilation, groups)
        picture = x.shape[1:]
        if picture not in self._packed:  # by two threads at once, perhaps, to the same end
            self._packed[picture] = self._pack(picture)
        return torch.ops.mkldnn._convolution_pointwise(x, self._packed[picture], self.bias, *self._conv, "none", [], "")


def pack_convs(module: nn.Module) -> None:
    """Puts packed convolutions in the place of the network's of fp32, where its device and this build of PyTorch have
    them. All tensors keep their names."""
    if can_pack(module) and next(module.parameters()).dtype is torch.float32:
        replace_layers(module, _is_wide, lambda m: PackedConv2d(cast(nn.Conv2d, m)))


def _is_wide(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.weight.dtype is torch.float32
