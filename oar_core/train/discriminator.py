"""A patch discriminator (Isola et al. 2017, arXiv 1611.07004) whose features also serve as a perceptual metric."""

from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

SLOPE = 0.2
GROUP = 16  # channels that are normalised together


class Discriminator(nn.Module):
    """One logit per patch of 4x4 pixels, each with a view of some 30x30.

    The first layer has no stride: behind strided ones alone, some grids of pixels look like a plain ground, and a
    decoder then paints them.
    """

    def __init__(self, widths: tuple[int, ...] = (48, 96, 128)) -> None:
        super().__init__()
        self.entry = nn.Conv2d(3, widths[0], 3, padding=1)
        strided = (
            _normed(nn.Conv2d(before, after, 4, stride=2, padding=1), after) for before, after in pairwise(widths)
        )
        self.layers = nn.ModuleList([*strided, _normed(nn.Conv2d(widths[-1], widths[-1], 3, padding=1), widths[-1])])
        self.to_logit = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, images: Float[Tensor, "B 3 Y X"]) -> tuple[Float[Tensor, "B 1 h w"], list[Tensor]]:
        """Logits, and the features of every layer, finest first."""
        features = [F.leaky_relu(self.entry(images), SLOPE)]
        for layer in self.layers:
            features.append(F.leaky_relu(layer(features[-1]), SLOPE))
        return self.to_logit(features[-1]), features


def _normed(layer: nn.Module, width: int) -> nn.Module:
    return nn.Sequential(layer, nn.GroupNorm(width // GROUP, width))
