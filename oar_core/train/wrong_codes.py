"""Wrong tokens, from which a sequence learns to recover: which ones of it, and what stands in their place."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class WrongSpan(NamedTuple):
    """The tokens from `start` to `end` - 1."""

    start: int
    end: int


def draw_wrong_span(count: int, group_size: int, generator: torch.Generator) -> WrongSpan:
    """One token of the first group, or a whole later one, of a sequence of `count` tokens; never the last group, unless
    there is no other."""
    most = count if count <= group_size else count - group_size
    drawn = int(torch.randint(most, (), generator=generator))
    if drawn < group_size:
        return WrongSpan(drawn, drawn + 1)
    start = drawn // group_size * group_size
    return WrongSpan(start, start + group_size)


def near_codes(
    codebook: Float[Tensor, "V C"], token_ids: Int[Tensor, "*S"], near: int, generator: torch.Generator
) -> Int[Tensor, "*S"]:
    """For each token one of the `near` codes nearest to its own, itself among them, all equally likely."""
    with torch.autocast(codebook.device.type, enabled=False):
        likeness = codebook[token_ids].float() @ codebook.float().T
    nearest = likeness.topk(min(near, len(codebook)), dim=-1).indices
    chosen = torch.randint(nearest.shape[-1], token_ids.shape, generator=generator).to(token_ids.device)
    return nearest.gather(-1, chosen[..., None]).squeeze(-1)
