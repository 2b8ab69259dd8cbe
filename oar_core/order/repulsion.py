"""Repulsion: positions of one group keep a distance from each other, since neighbours decide each other's tokens."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from oar_core.order.permutation import invert


@dataclass(frozen=True)
class Repulsion:
    """Positions that each row's group keeps apart. Distances are Chebyshev's, in cells of a grid of `width` columns."""

    distances: Int[Tensor, "R"]  # the least that is wanted; 1: any
    begun: Int[Tensor, "R D"]  # positions of the group that were decoded before an interruption, right-padded
    num_begun: Int[Tensor, "R"]
    width: int

    def too_close(self, candidates: Int[Tensor, "R G"], positions: Int[Tensor, "R"]) -> Bool[Tensor, "R G"]:
        """Tells whether each candidate lies closer to its row's position than the row allows."""
        rows = (candidates // self.width - (positions // self.width)[:, None]).abs()
        columns = (candidates % self.width - (positions % self.width)[:, None]).abs()
        return rows.maximum(columns) < self.distances[:, None]


def surest(scores: Float[Tensor, "R G"], widths: Int[Tensor, "R"], take: int) -> Int[Tensor, "R take"]:
    """Columns of the `take` highest scores of each row, highest first, of equals the first; columns from the row's
    width on are padding and come last."""
    columns = torch.arange(scores.shape[1], device=scores.device)
    scores = scores.masked_fill(columns >= widths[:, None], -torch.inf)
    return scores.argsort(dim=-1, descending=True, stable=True)[:, :take]


def surest_apart(
    scores: Float[Tensor, "R G"],
    widths: Int[Tensor, "R"],
    take: int,
    candidates: Int[Tensor, "R G"],
    repulsion: Repulsion | None,
) -> Int[Tensor, "R take"]:
    """`surest`, one column after another: each pick is the highest of those that are too close to the fewest earlier
    ones, which is none of them as long as there is room. Rows of distance 1 get what `surest` gives them.

    It compares whole numbers, so nothing depends on rounding, on the device or on the row's company.
    """
    if repulsion is None:
        return surest(scores, widths, take)
    num_columns = scores.shape[1]
    places = invert(surest(scores, widths, num_columns))  # pads come last
    # A conflict weighs more than all places; a pad or a pick more than all conflicts.
    conflict, gone = num_columns, num_columns * (take + repulsion.begun.shape[1] + 1)
    keys = places + gone * (torch.arange(num_columns, device=scores.device) >= widths[:, None])
    for column, positions in enumerate(repulsion.begun.unbind(1)):
        has_one = (column < repulsion.num_begun)[:, None]
        keys += conflict * (repulsion.too_close(candidates, positions) & has_one)
    picks: list[Int[Tensor, "R 1"]] = []
    for _ in range(take):
        pick = keys.argmin(dim=1, keepdim=True)
        picks.append(pick)
        keys += conflict * repulsion.too_close(candidates, candidates.gather(1, pick).squeeze(1))
        keys.scatter_add_(1, pick, torch.full_like(pick, 2 * gone))
    return torch.cat(picks, dim=1)
