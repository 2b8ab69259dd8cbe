"""Who sees whom in the two networks."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor


def encoder_mask(num_patches: int, limits: Sequence[int]) -> Bool[Tensor, "S S"]:
    """Of `[patches ; queries]`: patches see patches; a query sees all patches and the first `limits[i]` queries."""
    num_queries = len(limits)
    visible = torch.zeros(num_patches + num_queries, num_patches + num_queries, dtype=torch.bool)
    visible[:, :num_patches] = True
    visible[num_patches:, num_patches:] = torch.arange(num_queries) < torch.tensor(limits)[:, None]
    return visible
