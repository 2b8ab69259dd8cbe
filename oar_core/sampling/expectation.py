"""Guesses of a backbone for positions without a token. Previews show them; the picture does not change."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from oar_core.models.base import Backbone, Commit, Query
from oar_core.nn.kv_cache import KVCache


@dataclass(frozen=True)
class Expectation:
    """The likeliest token at each of some positions of a picture."""

    positions: tuple[int, ...]
    token_ids: tuple[int, ...]


@torch.inference_mode()
def expect(backbone: Backbone, cache: KVCache, slot: int, positions: Sequence[int]) -> Expectation:
    """One query of a slot by itself, without guidance. It sees what the slot's cache holds and leaves nothing in it."""
    asked = torch.tensor(positions, dtype=torch.long, device=cache.keys.device)
    nothing = asked.new_empty(1, 0)
    commit = Commit(nothing, nothing, torch.zeros(1, dtype=torch.long))
    logits = backbone.step(cache, torch.tensor([slot]), commit, Query(asked, (len(positions),)))
    return Expectation(tuple(positions), tuple(logits.argmax(-1).tolist()))
