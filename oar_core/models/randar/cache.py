"""The cache of RandAR, whose queries are entries."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from oar_core.nn.kv_cache import KVCache

NONE = -1


@dataclass
class InstructedCache(KVCache):
    """A `KVCache` whose latest entry of a slot may be an instruction: the question after a position whose token is not
    committed yet.

    The first question of a step stays: it saw what it would see if its token had followed it at once.
    """

    asked: Int[Tensor, "slots"] = field(kw_only=True)  # that position, on the host; NONE: all entries are committed

    @classmethod
    def of(cls, cache: KVCache) -> "InstructedCache":
        asked = torch.full((cache.num_slots,), NONE)
        return cls(cache.keys, cache.values, cache.lengths, asked=asked)

    def reset(self, slots: Int[Tensor, "B"]) -> None:
        super().reset(slots)
        self.asked[slots.cpu()] = NONE

    @contextmanager
    def restored(self, slot: int) -> Iterator[None]:
        asked = int(self.asked[slot])
        with super().restored(slot):
            yield
        self.asked[slot] = asked

    def grow(self, num_slots: int) -> None:
        added = torch.full((num_slots - self.num_slots,), NONE)
        super().grow(num_slots)
        self.asked = torch.cat([self.asked, added])

    def take_asked(self, slots: Int[np.ndarray, "B"], firsts: Int[np.ndarray, "B"]) -> Int[np.ndarray, "B"]:
        """Whether each slot ends with the instruction of that position (NONE: of no position), 0 or 1, as one that is
        committed from here on. Any other instruction is forgotten."""
        asked = self.asked.numpy()
        is_kept = (asked[slots] == firsts) & (firsts != NONE)
        self.lengths.numpy()[slots[(asked[slots] != NONE) & ~is_kept]] -= 1
        asked[slots] = NONE
        return is_kept.astype(np.int64)
