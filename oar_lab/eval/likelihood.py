"""Held-out likelihood of token grids."""

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from oar_core.models.base import Backbone, Commit, Condition, Prefix, Query
from oar_core.order.plan import DEFAULT_CANDIDATES
from oar_core.sampling.forced_order import orders_by_name


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
    """The mean of `picture_bits` over pictures."""
    bits = picture_bits(backbone, token_ids, conditions, order, batch_size=batch_size, seed=seed, candidates=candidates)
    return bits.mean().item()


@torch.inference_mode()
def picture_bits(
    backbone: Backbone,
    token_ids: Int[Tensor, "M L"],
    conditions: Sequence[Prefix],
    order: str = "random",
    *,
    sizes: Sequence[int] | None = None,
    batch_size: int = 64,
    seed: int = 0,
    candidates: int = DEFAULT_CANDIDATES,
) -> Float[Tensor, "M"]:
    """Mean over a picture's ranks of -log2 p(token), along an order by its name: of all but `likelihood`, the model's
    own included, this is a factorisation of the picture's probability.

    `sizes` are those of the steps: the tokens of a step do not know each other, which costs likelihood. None is one
    position a step.
    """
    device = next(backbone.parameters()).device
    parts: list[Tensor] = []
    for first in range(0, len(token_ids), batch_size):
        ids = token_ids[first : first + batch_size].to(device)
        condition = Condition.stack(conditions[first : first + batch_size], device)
        positions = orders_by_name(backbone, order, condition, ids, seed=seed, first=first, candidates=candidates)
        ordered = ids.gather(1, positions)
        if sizes is None:
            losses = _losses(backbone(condition, ordered, positions), ordered)
        else:
            losses = _group_losses(backbone, condition, ordered, positions, sizes)
        parts.append(losses.cpu())
    return torch.cat(parts) / token_ids.shape[1] / math.log(2)


def _group_losses(
    backbone: Backbone,
    condition: Condition,
    ordered: Int[Tensor, "B L"],
    positions: Int[Tensor, "B L"],
    sizes: Sequence[int],
) -> Float[Tensor, "B"]:
    batch = len(ordered)
    slots, cache = torch.arange(batch), backbone.new_cache(batch)

    def committed(start: int, end: int) -> Commit:
        return Commit(ordered[:, start:end], positions[:, start:end], torch.full((batch,), end - start))

    backbone.prefill(cache, slots, condition, committed(0, 0))
    total, before = torch.zeros(batch, device=ordered.device), 0
    for size, end in zip(sizes, accumulate(sizes), strict=True):
        start = end - size
        logits = backbone.step(cache, slots, committed(before, start), Query.grid(positions[:, start:end]))
        total += _losses(logits.unflatten(0, (batch, size)), ordered[:, start:end])
        before = start
    return total


def _losses(logits: Float[Tensor, "B N V"], token_ids: Int[Tensor, "B N"]) -> Float[Tensor, "B"]:
    """Nats a picture."""
    losses = F.cross_entropy(logits.flatten(0, 1).float(), token_ids.flatten(), reduction="none")
    return losses.view(token_ids.shape).sum(1)
