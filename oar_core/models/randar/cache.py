"""The cache of RandAR, whose queries are entries."""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from oar_core.nn.kv_cache import KVCache
from oar_core.nn.tables import moved

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

    def grow(self, num_slots: int) -> None:
        added = torch.full((num_slots - self.num_slots,), NONE)
        super().grow(num_slots)
        self.asked = torch.cat([self.asked, added])

    def take_asked(self, slots: Int[np.ndarray, "B"], firsts: Int[np.ndarray, "B"]) -> Int[np.ndarray, "B"]:
        """Tells whether each slot ends with the instruction of that position, 0 or 1, as one that is committed from
        here on. Any other instruction is forgotten."""
        asked = self.asked.numpy()
        is_kept = asked[slots] == firsts
        self.lengths.numpy()[slots[(asked[slots] != NONE) & ~is_kept]] -= 1
        asked[slots] = NONE
        return is_kept.astype(np.int64)

    def set_aside(self, slots: Int[np.ndarray, "B"]) -> "SetAside":
        """Takes the instruction off the end of each slot, for `put_back`."""
        self.lengths.numpy()[slots] -= 1
        on_device, entries = moved([slots, self.lengths.numpy()[slots]], self.keys.device)
        keys, values = (table[:, on_device, :, entries] for table in (self.keys, self.values))
        return SetAside(slots, on_device, entries, keys, values)

    def put_back(self, aside: "SetAside") -> None:
        """Restores what was set aside; the slots have their earlier length again."""
        self.keys[:, aside.on_device, :, aside.entries] = aside.keys
        self.values[:, aside.on_device, :, aside.entries] = aside.values
        self.lengths.numpy()[aside.slots] += 1


@dataclass(frozen=True)
class SetAside:
    """Entries that are out of their slots."""

    slots: Int[np.ndarray, "B"]
    on_device: Int[Tensor, "B"]
    entries: Int[Tensor, "B"]
    keys: Float[Tensor, "B layers N H"]
    values: Float[Tensor, "B layers N H"]
