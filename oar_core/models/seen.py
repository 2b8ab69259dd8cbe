"""Number of its row's new entries that each new entry may see, for `KVCache.extend`."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from oar_core.models.base import Commit
from oar_core.nn.tables import offsets_within


def listed_seen(commit: Commit) -> Int[np.ndarray, "M"] | None:
    """Number of tokens that each token of a commit sees, row after row. None: each sees those up to itself."""
    if commit.seen is None:
        return None
    return commit.seen.numpy()[commit.valid.numpy()]


def seen_after(lengths: Sequence[int], known: Commit) -> Int[np.ndarray, "M"]:
    """Number of entries that each entry of a prefill sees: condition prefixes, then known tokens. A condition's tokens
    see all of it and no token."""
    prefixes, added = np.asarray(lengths, dtype=np.int64), known.counts.numpy()
    counts = prefixes + added
    offsets = offsets_within(counts)
    prefix_of = np.repeat(prefixes, counts)
    seen = np.maximum(offsets + 1, prefix_of)
    listed = listed_seen(known)
    if listed is not None:
        is_token = offsets >= prefix_of
        seen[is_token] = np.repeat(prefixes, added) + listed
    return seen


def group_mask(groups: Int[Tensor, "L"]) -> Bool[Tensor, "1 1 S S"]:
    """Mask over `[class ; tokens ; queries]`: a token sees its group and groups before, a query sees tokens of
    groups before and queries of its group."""
    length, device = len(groups), groups.device
    earlier, same = groups[None] < groups[:, None], groups[None] == groups[:, None]
    visible = torch.zeros(1 + 2 * length, 1 + 2 * length, dtype=torch.bool, device=device)
    visible[:, 0] = True
    tokens, queries = slice(1, 1 + length), slice(1 + length, None)
    visible[tokens, tokens] = earlier | same
    visible[queries, tokens] = earlier
    visible[queries, queries] = same
    return visible[None, None]
