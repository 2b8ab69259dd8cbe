"""Prefill: conditions and known tokens enter the cache before the first decode step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from oar_core.models.base import Backbone, Commit, Condition, Prefix
from oar_core.nn.kv_cache import KVCache
from oar_core.nn.tables import moved, right_padded


@dataclass(frozen=True)
class PrefillRow:
    """The start of one slot. Under guidance a picture has two, which differ in the condition alone."""

    slot: int
    condition_ids: Prefix
    positions: Sequence[int]
    token_ids: Sequence[int]
    seen: Sequence[int] | None = None  # of these tokens, how many each sees, from the first; None: those up to itself

    @property
    def length(self) -> int:
        return len(self.condition_ids) + len(self.positions)


@torch.inference_mode()
def prefill(backbone: Backbone, cache: KVCache, rows: Sequence[PrefillRow]) -> None:
    """Resets the rows' slots and fills them, in one call."""
    rows = sorted(rows, key=lambda row: row.slot)
    positions, token_ids = (right_padded(known) for known in zip(*((row.positions, row.token_ids) for row in rows)))
    positions, token_ids = moved([positions, token_ids], cache.keys.device)
    listed = [row.seen for row in rows if row.seen is not None]
    seen = torch.from_numpy(right_padded(listed)) if listed else None
    backbone.prefill(
        cache,
        torch.tensor([row.slot for row in rows]),
        Condition.stack([row.condition_ids for row in rows], cache.keys.device),
        Commit(token_ids, positions, torch.tensor([len(row.positions) for row in rows]), seen),
    )
