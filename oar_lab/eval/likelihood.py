"""Held-out likelihood of token grids."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from oar_core.models.base import Backbone, Condition, Prefix
from oar_core.order.plan import DEFAULT_CANDIDATES
from oar_core.sampling.forced_order import orders_by_name


@torch.inference_mode()
def bits_per_token(
    backbone: Backbone,
    token_ids: Int[Tensor, "M L"],
    conditions: Sequence[Prefix],
    order: str = "random",
    *,
    batch_size: int = 64,
    seed: int = 0,
    candidates: int = DEFAULT_CANDIDATES,
) -> float:
    """Mean over pictures and ranks of -log2 p(token) along an order by its name: of all but `likelihood`, the model's
    own included, this is a factorisation of the picture's probability."""
    device = next(backbone.parameters()).device
    total = 0.0
    for first in range(0, len(token_ids), batch_size):
        ids = token_ids[first : first + batch_size].to(device)
        condition = Condition.stack(conditions[first : first + batch_size], device)
        positions = orders_by_name(backbone, order, condition, ids, seed=seed, first=first, candidates=candidates)
        ordered = ids.gather(1, positions)
        logits = backbone(condition, ordered, positions)
        total += F.cross_entropy(logits.flatten(0, 1).float(), ordered.flatten(), reduction="sum").item()
    return total / token_ids.numel() / math.log(2)
