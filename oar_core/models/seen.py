"""How many of its row's new entries each new entry may see, for `KVCache.extend`."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from oar_core.models.base import Commit
from oar_core.nn.tables import offsets_within


def listed_seen(commit: Commit) -> Int[np.ndarray, "M"] | None:
    """Of the tokens of a commit, row after row. None: each sees those up to itself."""
    if commit.seen is None:
        return None
    return commit.seen.numpy()[commit.valid.numpy()]


def seen_after(lengths: Sequence[int], known: Commit) -> Int[np.ndarray, "M"]:
    """Of condition prefixes of these lengths, each with the known tokens behind it. A condition's tokens see all of it
    and no token."""
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
