"""How sure the model is of a position, and the choice of positions by it."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor


def log_odds_of_best(logits: Float[Tensor, "R G V"]) -> Float[Tensor, "R G"]:
    """Log-odds of the likeliest token against all others: `max - logsumexp(others)`.

    Its sigmoid is the token's probability. Probabilities round to 1 in fp32 over a flat background and tie; their
    log-odds still differ.
    """
    best, codes = logits.max(dim=-1, keepdim=True)
    return (best - logits.scatter(-1, codes, -math.inf).logsumexp(dim=-1, keepdim=True)).squeeze(-1)


def log_probability(logits: Float[Tensor, "R G V"], token_ids: Int[Tensor, "R G"]) -> Float[Tensor, "R G"]:
    """Log-probability of the given token of each query."""
    return logits.log_softmax(dim=-1).gather(-1, token_ids[..., None]).squeeze(-1)


def entropy(logits: Float[Tensor, "R G V"]) -> Float[Tensor, "R G"]:
    """Of each query's distribution, in nats."""
    log_probabilities = logits.log_softmax(dim=-1)
    return -(log_probabilities.exp() * log_probabilities.clamp_min(-1e4)).sum(dim=-1)


def margin(logits: Float[Tensor, "R G V"]) -> Float[Tensor, "R G"]:
    """By how many nats the likeliest token leads the second."""
    first, second = logits.topk(2, dim=-1).values.unbind(-1)
    return first - second


def safe_together(entropies: Float[Tensor, "R G"], bounds: Float[Tensor, "R"]) -> Int[Tensor, "R"]:
    """How many of each row's first queries may be drawn at once: sum of entropies less the greatest <= bound.

    That difference bounds the divergence, in nats, between independent draws and draws one after another: the joint
    entropy is at least that of any one query (entropy-bounded unmasking, arXiv 2505.24857). Never less than 1.
    """
    excess = entropies.cumsum(dim=1) - entropies.cummax(dim=1).values
    return (excess <= bounds[:, None]).sum(dim=1).clamp_min(1)


def surest(scores: Float[Tensor, "R G"], widths: Int[Tensor, "R"], take: int) -> Int[Tensor, "R take"]:
    """Columns of the `take` highest scores of each row, highest first, of equals the first; columns from the row's
    width on are padding and come last."""
    columns = torch.arange(scores.shape[1], device=scores.device)
    scores = scores.masked_fill(columns >= widths[:, None], -math.inf)
    return scores.argsort(dim=-1, descending=True, stable=True)[:, :take]
