"""A static pool of key/value slots, one sequence per slot."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass
class KVCache:
    """Keys and values of every layer and slot.

    A slot's entries are compact: its condition tokens, then its committed tokens in decode order. So the first
    `lengths[slot]` entries are valid whatever the order, and one length per row is the whole mask. Entry `capacity`
    is a bin: writes of padding go there and nothing reads it.
    """

    keys: Float[Tensor, "layers slots N T+1 H"]
    values: Float[Tensor, "layers slots N T+1 H"]
    lengths: Int[Tensor, "slots"]  # on the host, so that how much to read is known without waiting for the device

    @classmethod
    def allocate(
        cls,
        *,
        num_layers: int,
        num_slots: int,
        num_heads: int,
        capacity: int,
        head_width: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> "KVCache":
        shape = (num_layers, num_slots, num_heads, capacity + 1, head_width)
        keys, values = (torch.zeros(shape, dtype=dtype, device=device) for _ in range(2))
        return cls(keys, values, torch.zeros(num_slots, dtype=torch.long))

    @property
    def num_slots(self) -> int:
        return self.keys.shape[1]

    @property
    def capacity(self) -> int:
        return self.keys.shape[3] - 1

    @property
    def num_bytes(self) -> int:
        """Of keys and values."""
        return self.keys.nbytes + self.values.nbytes

    def reset(self, slots: Int[Tensor, "B"]) -> None:
        """Empties the slots. Entries are zeroed: masked attention multiplies them by 0, which a NaN survives."""
        self.lengths[slots.cpu()] = 0
        on_device = slots.to(self.keys.device)
        self.keys.index_fill_(1, on_device, 0)
        self.values.index_fill_(1, on_device, 0)

    def extend(self, slots: Int[Tensor, "B"], valid: Bool[Tensor, "B S"]) -> "CacheWindow":
        """Lengthens each row by its valid new tokens; the window returned is where their entries go.

        On CUDA, slots and flags on the host spare a wait for the device.
        """
        return CacheWindow(self, slots, valid)


class CacheWindow:
    """The rows of a cache that one pass writes and reads: a `KeyValueStore`.

    `starts` are the rows' lengths before this pass and `lengths` after it, both (B,) on the cache's device.
    """

    def __init__(self, cache: KVCache, slots: Int[Tensor, "B"], valid: Bool[Tensor, "B S"]) -> None:
        host_slots, host_valid = slots.cpu(), valid.cpu()
        starts = cache.lengths[host_slots]
        lengths = starts + host_valid.sum(dim=1)
        self.extent = int(lengths.max())
        assert self.extent <= cache.capacity, f"{self.extent} entries in a slot of {cache.capacity}"
        cache.lengths[host_slots] = lengths
        device = cache.keys.device
        entries = (starts[:, None] + host_valid.cumsum(dim=1) - 1).masked_fill(~host_valid, cache.capacity)
        self.starts, self.lengths = starts.to(device), lengths.to(device)
        self._cache = cache
        self._slots = slots.to(device)
        self._entries = entries.to(device)
        self._range = _contiguous_range(host_slots)

    def update(
        self, layer: int, keys: Float[Tensor, "B S N H"], values: Float[Tensor, "B S N H"]
    ) -> tuple[Float[Tensor, "B N T H"], Float[Tensor, "B N T H"]]:
        """Stores the new entries of a layer; returns all of the rows' entries, up to the longest row."""
        rows = self._slots[:, None]
        self._cache.keys[layer][rows, :, self._entries] = keys.to(self._cache.keys.dtype)
        self._cache.values[layer][rows, :, self._entries] = values.to(self._cache.values.dtype)
        return self.read(layer)

    def read(self, layer: int) -> tuple[Float[Tensor, "B N T H"], Float[Tensor, "B N T H"]]:
        keys = self._cache.keys[layer, :, :, : self.extent]
        values = self._cache.values[layer, :, :, : self.extent]
        if self._range is not None:
            return keys[self._range], values[self._range]
        return keys[self._slots], values[self._slots]

    def visible(self, limits: Int[Tensor, "B S"]) -> Bool[Tensor, "B 1 S T"]:
        """Which entries a token sees that may look at the first `limits[b, s]` of its row."""
        entries = torch.arange(self.extent, device=limits.device)
        return entries < limits[:, None, :, None]


def _contiguous_range(slots: Int[Tensor, "B"]) -> slice | None:
    """The slots as a range, which is read without a copy; None if they are not one."""
    first, count = int(slots[0]), slots.shape[0]
    return slice(first, first + count) if torch.equal(slots, torch.arange(first, first + count)) else None
