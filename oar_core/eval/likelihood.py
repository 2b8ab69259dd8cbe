"""Held-out likelihood of token grids."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from oar_core.models.backbone import Condition
from oar_core.models.oar import OarBackbone


@torch.inference_mode()
def bits_per_token(
    backbone: OarBackbone,
    token_ids: Int[Tensor, "M L"],
    conditions: list[tuple[int, ...]],
    *,
    batch_size: int = 64,
    seed: int = 0,
) -> float:
    """Mean over pictures and ranks of -log2 p(token), one random order a picture (seeded)."""
    device = next(backbone.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    total = 0.0
    for indices in torch.arange(len(token_ids)).split(batch_size):
        ids = token_ids[indices]
        positions = torch.rand(ids.shape, generator=generator).argsort(-1)
        ordered = ids.gather(1, positions).to(device)
        condition = Condition.stack([conditions[index] for index in indices.tolist()], device)
        logits = backbone(condition, ordered, positions.to(device))
        total += F.cross_entropy(logits.flatten(0, 1).float(), ordered.flatten(), reduction="sum").item()
    return total / token_ids.numel() / math.log(2)
