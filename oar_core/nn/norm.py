"""The normalisation that every block uses."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Norm(nn.LayerNorm):
    """Layer norm with a learned gain and no bias.

    Chosen over an RMS norm for speed alone: on a CPU PyTorch runs this as one fused pass each way and an RMS norm as a
    chain of elementwise ones, several times slower.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6, bias=False)


class RMSNorm(nn.RMSNorm):
    """Root-mean-square norm in fp32, as LlamaGen and its kin have it."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__(width, eps=eps)
        self._eps = eps

    def forward(self, x: Float[Tensor, "*S D"]) -> Float[Tensor, "*S D"]:
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self._eps)
        return (wide * scale).type_as(x) * self.weight


def make_norm(kind: str, width: int) -> nn.Module:
    """`layer`, `rms`, or `rms-6`, whose eps is a tenth of that."""
    if kind == "layer":
        return Norm(width)
    return RMSNorm(width, 1e-6 if kind == "rms-6" else 1e-5)
