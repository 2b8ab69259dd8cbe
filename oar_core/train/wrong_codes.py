"""Wrong tokens, from which a sequence learns to recover: which ones of it, what stands in their place, and the tokens
behind them that make up for it."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oar_core.models.coarse_to_fine import CoarseToFineTokenizer, PatchMemory
from oar_core.models.oar.quantizer import Quantized


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
    """Draws for each token one of the `near` codes nearest to its own, itself among them, all equally likely."""
    with torch.autocast(codebook.device.type, enabled=False):
        likeness = codebook[token_ids].float() @ codebook.float().T
    nearest = likeness.topk(min(near, len(codebook)), dim=-1).indices
    chosen = torch.randint(nearest.shape[-1], token_ids.shape, generator=generator).to(token_ids.device)
    return nearest.gather(-1, chosen[..., None]).squeeze(-1)


@dataclass(frozen=True)
class Correction:
    """A sequence with wrong tokens in a span, up to the end of which it is given, and the tokens behind."""

    token_ids: Int[Tensor, "B K"]  # up to the end of the span
    codes: Float[Tensor, "B K C"]
    vectors: Float[Tensor, "B rest C"]
    behind: Quantized | None  # None where nothing is behind


def correct(
    tokenizer: CoarseToFineTokenizer,
    memory: PatchMemory,
    token_ids: Int[Tensor, "B L"],
    span: WrongSpan,
    near: int,
    generator: torch.Generator,
) -> Correction:
    """Puts near codes into the span, and computes what follows by who knows that; no gradient flows to what stands
    before."""
    quantizer = tokenizer.quantizer
    given = token_ids[:, : span.end].clone()
    given[:, span.start :] = near_codes(quantizer.codebook, given[:, span.start :], near, generator)
    codes = quantizer.lookup(given)
    if span.end == token_ids.shape[1]:
        return Correction(given, codes, codes[:, :0], None)
    vectors = tokenizer.describe_again(memory, codes)
    return Correction(given, codes, vectors, quantizer(vectors))
