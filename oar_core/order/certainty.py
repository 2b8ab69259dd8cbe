"""Measures of a model's certainty about the tokens of queried positions."""

import math

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
    """Entropy of each query's distribution, in nats."""
    log_probabilities = logits.log_softmax(dim=-1)
    return -(log_probabilities.exp() * log_probabilities.clamp_min(-1e4)).sum(dim=-1)


def surprise(logits: Float[Tensor, "R G V"], token_ids: Int[Tensor, "R G"]) -> Float[Tensor, "R G"]:
    """Nats by which the given token of each query is less likely than an average draw from its distribution.

    Its negative log-probability less the entropy: a token drawn where the model knew little is not surprising.
    """
    return -log_probability(logits, token_ids) - entropy(logits)


def margin(logits: Float[Tensor, "R G V"]) -> Float[Tensor, "R G"]:
    """Nats by which the likeliest token leads the second."""
    first, second = logits.topk(2, dim=-1).values.unbind(-1)
    return first - second
