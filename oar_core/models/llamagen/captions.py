"""Inputs of LlamaGen's network from a caption."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from oar_core.models.base import Condition
from oar_core.models.llamagen.config import LlamaGenConfig


class CaptionEmbedding(nn.Module):
    """Features through two layers. Id i stands for the features of place i of no caption.

    Published networks read a caption at the last of their places, and beside it the same places of no caption. Tokens
    of a condition have no place but their order, so places before a caption are left out.
    """

    nothing: Tensor

    def __init__(self, config: LlamaGenConfig) -> None:
        super().__init__()
        self.register_buffer("nothing", torch.zeros(config.max_caption, config.caption_width))
        self.up = nn.Linear(config.caption_width, config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)

    def forward(self, condition: Condition) -> Float[Tensor, "B P D"]:
        features = self.nothing[condition.ids]
        if condition.features is not None:
            assert condition.is_features is not None, "features without the rows that have them"
            features = torch.where(condition.is_features[:, None, None], condition.features.to(features), features)
        return self.out(F.gelu(self.up(features), approximate="tanh"))
