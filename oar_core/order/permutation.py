"""Permutations of grid positions: `order[i]` is the position at rank i, `rank[p]` the rank of position p."""

import torch
from jaxtyping import Int
from torch import Tensor


def invert(order: Int[Tensor, "*B L"]) -> Int[Tensor, "*B L"]:
    """Ranks of an order, or the order of ranks: `invert(order)[order[i]] == i`, row by row."""
    ranks = torch.arange(order.shape[-1], device=order.device, dtype=order.dtype).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, ranks)
