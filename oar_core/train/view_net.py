"""A network that knows two views of one picture for the same: its features, frozen, are what first tokens are drawn to.

It learns without labels, and shares neither blocks nor seed nor loss with the evaluation network.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

WIDTHS = (32, 64, 96, 128)
GROUPS = 8


class ViewNet(nn.Module):
    """Any picture size; pixels lie in [-1, 1]. The head serves training alone."""

    width = WIDTHS[-1]

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width in WIDTHS:
            layers += [nn.Conv2d(before, width, 3, stride=2, padding=1), nn.GroupNorm(GROUPS, width), nn.SiLU()]
            before = width
        self.stages = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(self.width, self.width), nn.SiLU(), nn.Linear(self.width, 64))

    def forward(self, images: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B D"]:
        return self.stages(images).float().mean((2, 3))

    def project(self, features: Float[Tensor, "B D"]) -> Float[Tensor, "B 64"]:
        """Vectors of length 1, by which views are compared."""
        return F.normalize(self.head(features).float(), dim=-1)
