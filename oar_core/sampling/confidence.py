"""The number of positions that may be drawn at once."""

from jaxtyping import Float, Int
from torch import Tensor


def safe_together(entropies: Float[Tensor, "R G"], bounds: Float[Tensor, "R"]) -> Int[Tensor, "R"]:
    """Number of each row's first queries that may be drawn at once: sum of entropies less the greatest <= bound.

    That difference bounds the divergence, in nats, between independent draws and draws one after another: the joint
    entropy is at least that of any one query (entropy-bounded unmasking, arXiv 2505.24857). Never less than 1.
    """
    excess = entropies.cumsum(dim=1) - entropies.cummax(dim=1).values
    return (excess <= bounds[:, None]).sum(dim=1).clamp_min(1)
