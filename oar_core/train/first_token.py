"""Aligns the first token of a sequence with the meaning of its picture: it has to predict frozen features."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

HIDDEN = 256


class FirstTokenHead(nn.Module):
    """Serves training alone, and is not shipped."""

    def __init__(self, code_width: int, feature_width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(code_width, HIDDEN),
            nn.SiLU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.SiLU(),
            nn.Linear(HIDDEN, feature_width),
        )

    def forward(self, codes: Float[Tensor, "B C"], features: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
        """One minus the cosine of the angle between what the codes foretell and the features; mean over pictures."""
        return 1 - F.cosine_similarity(self.layers(codes).float(), features.float(), dim=-1).mean()
