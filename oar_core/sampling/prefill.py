"""Prefill: conditions and known tokens enter the cache before the first decode step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from oar_core.models.backbone import Backbone, Commit, Condition, right_padded
from oar_core.nn.kv_cache import KVCache

WORTH_A_CALL = 64  # padded tokens that must be saved for a second call to pay


@dataclass(frozen=True)
class PrefillRow:
    """What one slot starts with. Under guidance a picture has two, which differ in the condition alone."""

    slot: int
    condition_ids: Sequence[int]
    positions: Sequence[int]
    token_ids: Sequence[int]

    @property
    def length(self) -> int:
        return len(self.condition_ids) + len(self.positions)


@torch.inference_mode()
def prefill(backbone: Backbone, cache: KVCache, rows: Sequence[PrefillRow]) -> None:
    """Resets the rows' slots and fills them, in one call, or in two where padding would cost more."""
    for call in _calls(rows):
        _prefill_call(backbone, cache, call)


def _calls(rows: Sequence[PrefillRow]) -> list[list[PrefillRow]]:
    """Short rows (unconditional ones hold a single token) apart from long ones, each by ascending slot."""
    by_slot = sorted(rows, key=lambda row: row.slot)
    longest = max(row.length for row in rows)
    short = [row for row in by_slot if 2 * row.length <= longest]
    saved = sum(longest - row.length for row in short)
    if saved < WORTH_A_CALL or len(short) == len(rows):
        return [by_slot]
    return [short, [row for row in by_slot if 2 * row.length > longest]]


def _prefill_call(backbone: Backbone, cache: KVCache, rows: Sequence[PrefillRow]) -> None:
    device = cache.keys.device
    backbone.prefill(
        cache,
        torch.tensor([row.slot for row in rows]),
        Condition.stack([row.condition_ids for row in rows], device),
        Commit(
            token_ids=right_padded([row.token_ids for row in rows]).to(device),
            positions=right_padded([row.positions for row in rows]).to(device),
            counts=torch.tensor([len(row.positions) for row in rows]),
        ),
    )
