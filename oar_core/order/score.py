"""The score by which a model chooses its own order: how certain it is of a position, and how far that lies off."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oar_core.config import OrderScore
from oar_core.order.certainty import entropy, log_odds_of_best, margin
from oar_core.order.paths import Grid

# Of fp32 logits. Max probability is compared by its log-odds: they do not tie over a flat background.
CERTAINTIES: dict[str, Callable[[Float[Tensor, "B G V"]], Float[Tensor, "B G"]]] = {
    "max_probability": log_odds_of_best,
    "negative_entropy": lambda logits: -entropy(logits),
    "margin": margin,
    "entropy": entropy,  # the least certain first
}


def score_positions(
    logits: Float[Tensor, "B G V"],
    remaining: Int[Tensor, "B G"],
    widths: Int[Tensor, "B"],
    grid: Grid,
    order_score: OrderScore,
) -> Float[Tensor, "B G"]:
    """Scores of each row's first `widths` positions, which are all that it does not know; the others are padding."""
    return scored(CERTAINTIES[order_score.name](logits), remaining, widths, grid, order_score)


def scored(
    certainty: Float[Tensor, "B G"],
    remaining: Int[Tensor, "B G"],
    widths: Int[Tensor, "B"],
    grid: Grid,
    order_score: OrderScore,
) -> Float[Tensor, "B G"]:
    """The same from certainties, by the function of CERTAINTIES that the score names."""
    if not order_score.distance_weight:
        return certainty
    return certainty - order_score.distance_weight * distance_to_known(remaining, widths, grid)


def distance_to_known(remaining: Int[Tensor, "B G"], widths: Int[Tensor, "B"], grid: Grid) -> Float[Tensor, "B G"]:
    """Cells from each remaining position to the nearest known one (Euclidean); 0 where nothing is known."""
    device = remaining.device
    cells = torch.cartesian_prod(torch.arange(grid[0], device=device), torch.arange(grid[1], device=device)).float()
    distances = torch.cdist(cells, cells)
    is_asked = torch.arange(remaining.shape[1], device=device) < widths[:, None]
    asked = torch.zeros(len(remaining), len(cells), device=device).scatter_add_(1, remaining, is_asked.float())
    to_known = distances[remaining].masked_fill(asked.bool()[:, None], torch.inf)
    nearest = to_known.amin(dim=-1)
    return nearest.masked_fill(nearest.isinf(), 0)
