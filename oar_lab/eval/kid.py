"""Kernel distance: the unbiased squared maximum mean discrepancy under a cubic kernel (KID, arXiv 1801.01401)."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class KernelDistance:
    """Mean over blocks, and its standard error (0 for a single block). May be negative: it is unbiased."""

    value: float
    standard_error: float
    num_blocks: int


def kernel_distance(
    real: Float[Tensor, "M D"], fake: Float[Tensor, "N D"], *, block_size: int = 500, min_blocks: int = 5, seed: int = 0
) -> KernelDistance:
    """Over disjoint random blocks of `block_size` samples of each side, so that the blocks are independent.

    Blocks are smaller where there would be fewer than `min_blocks`, of two samples at least. The last samples that fill
    no block are left out.
    """
    generator = torch.Generator().manual_seed(seed)
    smaller = min(len(real), len(fake))
    size = max(2, min(block_size, smaller // min_blocks))
    num_blocks = smaller // size
    blocks = [
        side.double()[torch.randperm(len(side), generator=generator)[: num_blocks * size]].unflatten(0, (-1, size))
        for side in (real, fake)
    ]
    estimates = torch.tensor([squared_mmd(*pair) for pair in zip(*blocks)], dtype=torch.float64)
    error = estimates.std().item() / math.sqrt(num_blocks) if num_blocks > 1 else 0.0
    return KernelDistance(estimates.mean().item(), error, num_blocks)


def squared_mmd(real: Float[Tensor, "M D"], fake: Float[Tensor, "N D"]) -> float:
    """The unbiased estimate: no sample is compared with itself. At least two samples a side."""
    within = _mean_off_diagonal(cubic_kernel(real, real)) + _mean_off_diagonal(cubic_kernel(fake, fake))
    return (within - 2 * cubic_kernel(real, fake).mean()).item()


def cubic_kernel(left: Float[Tensor, "M D"], right: Float[Tensor, "N D"]) -> Float[Tensor, "M N"]:
    """(x . y / D + 1)^3"""
    return (left @ right.T / left.shape[1] + 1) ** 3


def _mean_off_diagonal(kernel: Float[Tensor, "M M"]) -> Float[Tensor, ""]:
    count = len(kernel)
    return (kernel.sum() - kernel.trace()) / (count * (count - 1))
