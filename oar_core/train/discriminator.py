"""A patch discriminator (Isola et al. 2017, arXiv 1611.07004) whose features also serve as a perceptual metric."""

from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class Discriminator(nn.Module):
    """Strided convolutions under spectral normalisation; one logit per patch of 8x8 pixels."""

    def __init__(self, widths: tuple[int, ...] = (64, 128, 128)) -> None:
        super().__init__()
        sizes = (3, *widths)
        self.layers = nn.ModuleList(
            spectral_norm(nn.Conv2d(before, after, 4, stride=2, padding=1)) for before, after in pairwise(sizes)
        )
        self.to_logit = spectral_norm(nn.Conv2d(sizes[-1], 1, 3, padding=1))

    def forward(self, images: Float[Tensor, "B 3 Y X"]) -> tuple[Float[Tensor, "B 1 h w"], list[Tensor]]:
        """Logits, and the features of every layer, finest first."""
        features: list[Tensor] = []
        hidden = images
        for layer in self.layers:
            hidden = F.leaky_relu(layer(hidden), 0.2)
            features.append(hidden)
        return self.to_logit(hidden), features
