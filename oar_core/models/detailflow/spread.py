"""Vectors of a token moved apart: at each place of the sequence they have mean 0 and variance 1 over the pictures.

What a query answers depends far more on its place than on the picture, before anything is learned; without this, each
place has a few codes of its own and the codebook is hardly used.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

DECAY = 0.8  # of the moving statistics: places move fast at first, and old statistics are no statistics
LEAST_VARIANCE = 1e-6


class Spread(nn.Module):
    """The statistics move with what training sees, and take no gradient: each token is a function of its picture alone,
    in training too. Both passes of the encoder have those of the first."""

    mean: Tensor
    variance: Tensor
    num_updates: Tensor

    def __init__(self, num_tokens: int, code_width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_tokens, code_width))
        self.register_buffer("variance", torch.ones(num_tokens, code_width))
        self.register_buffer("num_updates", torch.zeros(()))

    def forward(self, vectors: Float[Tensor, "B K C"]) -> Float[Tensor, "B K C"]:
        """Of the last K tokens."""
        first = len(self.mean) - vectors.shape[1]
        return (vectors.float() - self.mean[first:]) * (self.variance[first:] + LEAST_VARIANCE).rsqrt()

    @torch.no_grad()
    def update(self, vectors: Float[Tensor, "B L C"]) -> None:
        """The first updates count alike."""
        vectors = vectors.detach().float()
        self.num_updates += 1
        weight = torch.maximum(1 / self.num_updates, torch.tensor(1 - DECAY, device=vectors.device))
        mean = vectors.mean(0)
        self.variance.lerp_((vectors - self.mean.lerp(mean, weight)).square().mean(0), weight)
        self.mean.lerp_(mean, weight)
