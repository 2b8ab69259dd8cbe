"""A cache that also keeps what the network made of the entries that the next step is read from."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oar_core.nn.kv_cache import KVCache


@dataclass
class GroupCache(KVCache):
    """Entry e of a slot leaves its state in place e modulo the size of a group."""

    last: Float[Tensor, "slots G D"] = field(kw_only=True)
    conditions: Int[Tensor, "slots"] = field(kw_only=True)  # tokens of each slot's condition, on the host

    @classmethod
    def of(cls, cache: KVCache, group_size: int, width: int, dtype: torch.dtype) -> "GroupCache":
        last = torch.zeros(cache.num_slots, group_size, width, dtype=dtype, device=cache.keys.device)
        return cls(cache.keys, cache.values, cache.lengths, last=last, conditions=torch.zeros_like(cache.lengths))

    @property
    def num_bytes(self) -> int:
        return super().num_bytes + self.last.nbytes

    def grow(self, num_slots: int) -> None:
        added = num_slots - self.num_slots
        super().grow(num_slots)
        self.last = torch.cat([self.last, self.last.new_zeros(added, *self.last.shape[1:])])
        self.conditions = torch.cat([self.conditions, self.conditions.new_zeros(added)])
