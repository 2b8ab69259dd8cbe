"""Statistics of a set of orders: where it starts, whether figure or ground comes first, which paths it agrees with."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from oar_core.order.paths import Grid
from oar_core.order.permutation import invert

WHITE = 250  # of 255; the data sets' backgrounds are white up to compression
NUM_FIRST = 8


@dataclass(frozen=True)
class OrderStats:
    """Ranks count from 0. Entropies are in bits; that of a uniform choice is log2 of the number of positions."""

    num_images: int
    mean_rank: list[list[float]]  # by row and column of the grid
    first_entropy: list[float]  # of the position at each of the first ranks
    foreground_share: float  # of patches
    foreground_rank: float | None  # mean over the patches of a kind; None where there are none
    background_rank: float | None


def order_stats(orders: Int[Tensor, "M L"], grid: Grid, foreground: Bool[Tensor, "M L"]) -> OrderStats:
    """`foreground` says which patches, by position, are not plain white."""
    ranks = invert(orders).double()
    return OrderStats(
        num_images=len(orders),
        mean_rank=ranks.mean(dim=0).view(grid).tolist(),
        first_entropy=[position_entropy(orders[:, rank]) for rank in range(min(NUM_FIRST, orders.shape[1]))],
        foreground_share=foreground.double().mean().item(),
        foreground_rank=ranks[foreground].mean().item() if foreground.any() else None,
        background_rank=ranks[~foreground].mean().item() if not foreground.all() else None,
    )


def position_entropy(positions: Int[Tensor, "M"]) -> float:
    frequency = torch.bincount(positions).double() / len(positions)
    return torch.special.entr(frequency).sum().item() / np.log(2)


def foreground_patches(pixels: UInt8[np.ndarray, "M Y X 3"], grid: Grid) -> Bool[Tensor, "M L"]:
    """Patches with a pixel that is not white."""
    count, height, width = pixels.shape[:3]
    patch = (height // grid[0], width // grid[1])
    inked = (pixels < WHITE).any(axis=-1).reshape(count, grid[0], patch[0], grid[1], patch[1])
    return torch.from_numpy(inked.any(axis=(2, 4)).reshape(count, -1))


def spearman(a: Int[Tensor, "M L"], b: Int[Tensor, "M L"]) -> Float[Tensor, "M"]:
    """Rank correlation of two orders of each picture: 1 equal, 0 unrelated, -1 reversed."""
    length = a.shape[1]
    squares = (invert(a) - invert(b)).double().square().sum(dim=1)
    return 1 - 6 * squares / (length * (length**2 - 1))


def kendall(a: Int[Tensor, "M L"], b: Int[Tensor, "M L"]) -> Float[Tensor, "M"]:
    """Share of pairs of positions in the same order less the share in opposite order (Kendall's tau)."""
    length = a.shape[1]
    signs = [(ranks[:, :, None] - ranks[:, None]).sign() for ranks in (invert(a), invert(b))]
    return (signs[0] * signs[1]).sum(dim=(1, 2)).double() / (length * (length - 1))


def score_agreement(orders: dict[str, Int[Tensor, "M L"]]) -> dict[str, dict[str, float]]:
    """Mean rank correlations of each pair of ways to order the same pictures, by `a / b`."""
    return {
        f"{first} / {second}": {
            "spearman": spearman(orders[first], orders[second]).mean().item(),
            "kendall": kendall(orders[first], orders[second]).mean().item(),
        }
        for first, second in combinations(orders, 2)
    }
