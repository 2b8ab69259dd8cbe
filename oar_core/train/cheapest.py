"""The order that costs least in few steps, searched under a Gaussian model of the vectors at the positions.

The positions of a step are drawn without knowledge of each other. What that ignores is their dependence, given what
earlier steps have fixed. For Gaussian vectors it has a closed form: an order is judged in milliseconds, so thousands of
exchanges can be tried.
"""

import random
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from oar_core.order.paths import Order

NOISE = 0.1  # variance of what no other position tells, as a share of the mean variance
NUM_AXES = 5  # kept of each position's vector


def position_covariance(
    vectors: Float[Tensor, "M L C"], conditions: Float[Tensor, "M F"], *, noise: float = NOISE, num_axes: int = NUM_AXES
) -> Float[Tensor, "L D L D"]:
    """Covariance that conditions leave unexplained (ridge regression), along each position's own main axes."""
    length, width = vectors.shape[1:]
    flat = (vectors - vectors.mean(dim=0)).flatten(1)
    features = torch.cat([conditions, torch.ones(len(conditions), 1)], dim=1)
    weights = torch.linalg.solve(features.T @ features + torch.eye(features.shape[1]), features.T @ flat)
    left = (flat - features @ weights).double()
    covariance = (left.T @ left / len(left)).view(length, width, length, width)
    own = covariance.diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    axes = torch.linalg.eigh(own).eigenvectors[:, :, -num_axes:]
    kept = torch.einsum("iac,iajb,jbd->icjd", axes, covariance, axes)
    scale = own.diagonal(dim1=1, dim2=2).mean()
    identity = torch.eye(kept.shape[0] * kept.shape[1], dtype=kept.dtype).view(kept.shape)
    return kept / scale + noise * identity


def schedule_nats(covariance: Float[Tensor, "L D L D"], order: Sequence[int], sizes: Sequence[int]) -> float:
    """Entropy of all positions in nats, each step's positions without each other: the least is that of one a step."""
    width = covariance.shape[1]
    chosen = torch.tensor(order)
    rest = covariance[chosen][:, :, chosen].reshape(len(order) * width, len(order) * width)
    total = 0.0
    for size in sizes:
        count = size * width
        step, beside, others = rest[:count, :count], rest[:count, count:], rest[count:, count:]
        own = step.view(size, width, size, width).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        total += 0.5 * torch.linalg.slogdet(own).logabsdet.sum().item()
        known = torch.linalg.solve_triangular(torch.linalg.cholesky(step), beside, upper=False)
        rest = others - known.T @ known
    return total


def cheapest_order(
    covariance: Float[Tensor, "L D L D"], start: Sequence[int], sizes: Sequence[int], *, num_trials: int, seed: int = 0
) -> Order:
    """Exchanges two positions of different steps, drawn at random, wherever that costs less."""
    rng, order = random.Random(seed), list(start)
    step_of = [step for step, size in enumerate(sizes) for _ in range(size)]
    least = schedule_nats(covariance, order, sizes)
    for _ in range(num_trials):
        a, b = rng.randrange(len(order)), rng.randrange(len(order))
        if step_of[a] == step_of[b]:
            continue
        order[a], order[b] = order[b], order[a]
        nats = schedule_nats(covariance, order, sizes)
        if nats < least:
            least = nats
        else:
            order[a], order[b] = order[b], order[a]
    return tuple(order)
