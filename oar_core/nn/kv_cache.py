"""A static pool of key/value slots, one sequence per slot."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from oar_core.nn.attention import additive_mask, attend
from oar_core.nn.segments import Layout, segment_cost
from oar_core.nn.tables import moved, offsets_within


@dataclass
class KVCache:
    """Keys and values of every layer and slot.

    A slot's entries are compact: its condition tokens, then its committed tokens in decode order. So the first
    `lengths[slot]` entries are valid whatever the order, and one length per row is the whole mask.
    """

    keys: Float[Tensor, "layers slots N T H"]
    values: Float[Tensor, "layers slots N T H"]
    lengths: Int[Tensor, "slots"]  # on the host, so that how much to read is known without waiting for the device
    num_pads: int = 0  # of all queries so far: places of attention that held none

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
        shape = (num_layers, num_slots, num_heads, capacity, head_width)
        keys, values = (torch.zeros(shape, dtype=dtype, device=device) for _ in range(2))
        return cls(keys, values, torch.zeros(num_slots, dtype=torch.long))

    @classmethod
    def beside(
        cls, weight: Tensor, *, num_layers: int, num_slots: int, num_heads: int, capacity: int, head_width: int
    ) -> "KVCache":
        """An empty cache on a weight's device and in its dtype; on a CPU in fp32, which is faster for attention."""
        return cls.allocate(
            num_layers=num_layers,
            num_slots=num_slots,
            num_heads=num_heads,
            capacity=capacity,
            head_width=head_width,
            dtype=torch.float32 if weight.device.type == "cpu" else weight.dtype,
            device=weight.device,
        )

    @property
    def num_slots(self) -> int:
        return self.keys.shape[1]

    @property
    def capacity(self) -> int:
        return self.keys.shape[3]

    @property
    def num_bytes(self) -> int:
        """Size of keys and values."""
        return self.keys.nbytes + self.values.nbytes

    def grow(self, num_slots: int) -> None:
        """Grows to `num_slots` slots; the present ones keep their contents. Keys are moved before values are: at the
        most, one of the two is there twice."""
        for name in ("keys", "values"):
            old: Tensor = getattr(self, name)
            new = old.new_zeros(old.shape[0], num_slots, *old.shape[2:])
            new[:, : old.shape[1]] = old
            setattr(self, name, new)
        added = torch.zeros(num_slots - len(self.lengths), dtype=self.lengths.dtype)
        self.lengths = torch.cat([self.lengths, added])

    def reset(self, slots: Int[Tensor, "B"]) -> None:
        """Empties the slots. Entries are zeroed: masked attention multiplies them by 0, which a NaN survives."""
        self.lengths[slots.cpu()] = 0
        on_device = slots.to(self.keys.device)
        self.keys.index_fill_(1, on_device, 0)
        self.values.index_fill_(1, on_device, 0)

    def put(
        self,
        layer: int,
        slots: Int[Tensor, "M"],
        entries: Int[Tensor, "M"],
        keys: Float[Tensor, "M N H"],
        values: Float[Tensor, "M N H"],
    ) -> None:
        """Writes one entry of a layer for each token."""
        self.keys[layer][slots, :, entries] = keys.to(self.keys.dtype)
        self.values[layer][slots, :, entries] = values.to(self.values.dtype)

    def extend(
        self, slots: Int[Tensor, "B"], counts: Sequence[int], seen: Int[np.ndarray, "M"] | None = None
    ) -> "Window":
        """Lengthens row b by `counts[b]` new tokens; the window returned is where their entries go.

        A new token sees all entries that were there, and of its row's new ones the first `seen[m]`; unless given, those
        before it and itself. On CUDA, slots on the host spare a wait for the device.
        """
        rows, added = slots.cpu().numpy(), np.asarray(counts, dtype=np.int64)
        starts = self.lengths.numpy()[rows]
        self.lengths.numpy()[rows] = starts + added
        offsets = offsets_within(added)
        before = np.repeat(starts, added)
        return Window(self, rows, added, before + offsets, before + (offsets + 1 if seen is None else seen))

    def forget(self, slots: Int[Tensor, "B"], counts: Sequence[int]) -> None:
        """Shortens row b by its latest `counts[b]` entries; the next ones take their places."""
        self.lengths.numpy()[slots.cpu().numpy()] -= np.asarray(counts, dtype=np.int64)

    def look(self, slots: Int[Tensor, "B"], counts: Sequence[int]) -> "Window":
        """A window for `counts[b]` queries of row b, which see all of the row's entries and leave none."""
        rows, asked = slots.cpu().numpy(), np.asarray(counts, dtype=np.int64)
        window = Window(self, rows, asked, None, np.repeat(self.lengths.numpy()[rows], asked))
        self.num_pads += window.layout.num_pads
        return window


class CachePass(ABC):
    """A pass over a cache: a `KeyValueStore` whose new entries are written before anything is read."""

    @abstractmethod
    def write(self, layer: int, keys: Float[Tensor, "M N H"], values: Float[Tensor, "M N H"]) -> None:
        """Stores the new entries of a layer."""

    @abstractmethod
    def read(self, layer: int, queries: Float[Tensor, "M N H"]) -> Float[Tensor, "M D"]:
        """Attention of the tokens to what each may see of a layer's entries, heads joined."""

    def attend(
        self, layer: int, queries: Float[Tensor, "M N H"], keys: Float[Tensor, "M N H"], values: Float[Tensor, "M N H"]
    ) -> Float[Tensor, "M D"]:
        self.write(layer, keys, values)
        return self.read(layer, queries)


class Window(CachePass):
    """Access of one pass to a cache: a `KeyValueStore`.

    The pass' tokens are one list, row after row. For attention they are laid out on the grids of segments, and back.
    """

    def __init__(
        self,
        cache: KVCache,
        slots: Int[np.ndarray, "B"],
        counts: Int[np.ndarray, "B"],
        entries: Int[np.ndarray, "M"] | None,
        limits: Int[np.ndarray, "M"],
    ) -> None:
        """Token m goes to `entries[m]` of its row, where the pass writes, and sees the row's first `limits[m]`."""
        lengths = cache.lengths.numpy()[slots]
        assert lengths.max(initial=0) <= cache.capacity, f"{lengths.max()} entries in a slot of {cache.capacity}"
        self._cache = cache
        cost = segment_cost(cache.keys.shape[2] * cache.keys.shape[4], cache.keys.device.type)
        self.layout = Layout.of(slots, counts, lengths, cost)
        self._is_list = self.layout.is_list
        # A pad sees all: then it asks for no mask, and what it makes is dropped.
        on_grids = np.full(len(self.layout.sources), cache.capacity)
        on_grids[self.layout.places] = limits
        self._sees_all = _see_all(self.layout, on_grids)
        written = [] if entries is None else [np.repeat(slots, counts), entries]
        tables = moved([self.layout.places, self.layout.sources, on_grids, *written], cache.keys.device)
        self._places, self._sources, self._limits, *self._written = tables
        self._masks: list[Float[Tensor, "S 1 G T"] | None] | None = None

    def write(self, layer: int, keys: Float[Tensor, "M N H"], values: Float[Tensor, "M N H"]) -> None:
        """Stores the new entries of a layer."""
        slots, entries = self._written
        self._cache.put(layer, slots, entries, keys, values)

    def read(self, layer: int, queries: Float[Tensor, "M N H"]) -> Float[Tensor, "M D"]:
        """Attention of the tokens to what each may see of a layer's entries, heads joined."""
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        grids = (queries if self._is_list else queries[self._sources]).to(keys.dtype)
        joined: list[Float[Tensor, "P D"]] = []
        for segment, part, mask in zip(self.layout.segments, grids.split(self._sizes), self._segment_masks()):
            rows = slice(segment.first, segment.last)
            seen = keys[rows, :, : segment.extent], values[rows, :, : segment.extent]
            part = part.unflatten(0, (segment.num_rows, segment.width))
            joined.append(attend(part, *seen, mask).flatten(0, 1))
        attended = (joined[0] if len(joined) == 1 else torch.cat(joined)).to(queries.dtype)
        return attended if self._is_list else attended[self._places]

    @property
    def _sizes(self) -> list[int]:
        return [segment.num_places for segment in self.layout.segments]

    def _segment_masks(self) -> list[Float[Tensor, "S 1 G T"] | None]:
        """Additive masks, built once for all layers; None where every token sees all that is read."""
        if self._masks is None:
            self._masks = []
            for segment, limits, sees_all in zip(self.layout.segments, self._limits.split(self._sizes), self._sees_all):
                entries = torch.arange(segment.extent, device=limits.device)
                visible = entries < limits.view(segment.num_rows, 1, segment.width, 1)
                self._masks.append(None if sees_all else additive_mask(visible, self._cache.keys.dtype))
        return self._masks


class FixedWindow(CachePass):
    """Access of a pass of fixed shape to a cache: a `KeyValueStore`, and a `SharedMemory` of its last
    layer. All tables lie on the device, so nothing here waits for it or depends on what they hold.

    The pass has as many tokens of each of the first `num_rows` slots; token k of row b sees `limits[b, k]` entries, at
    least one and at most `extent`, which is what is read.
    """

    def __init__(
        self,
        cache: KVCache,
        num_rows: int,
        extent: int,
        limits: Int[Tensor, "B #K"],
        slots: Int[Tensor, "M"] | None = None,
        entries: Int[Tensor, "M"] | None = None,
    ) -> None:
        """Token m is written to `entries[m]` of `slots[m]`; without them the pass writes nothing."""
        self._cache, self._num_rows, self._extent = cache, num_rows, extent
        self._slots, self._entries = slots, entries
        visible = torch.arange(extent, device=limits.device) < limits[:, None, :, None]
        self._mask = additive_mask(visible, cache.keys.dtype)

    def write(self, layer: int, keys: Float[Tensor, "M N H"], values: Float[Tensor, "M N H"]) -> None:
        assert self._slots is not None, "this window is for reading"
        assert self._entries is not None, "tokens are written to slots and no entries"
        self._cache.put(layer, self._slots, self._entries, keys, values)

    def read(self, layer: int, queries: Float[Tensor, "M N H"]) -> Float[Tensor, "M D"]:
        keys, values = (
            table[layer][: self._num_rows, :, : self._extent] for table in (self._cache.keys, self._cache.values)
        )
        grid = queries.to(keys.dtype).unflatten(0, (self._num_rows, -1))
        return attend(grid, keys, values, self._mask).flatten(0, 1).to(queries.dtype)


@dataclass(frozen=True)
class CachedMemory:
    """One layer of a cache, as several layers of queries attend to it: a `SharedMemory`."""

    window: CachePass
    layer: int

    def attend(self, queries: Float[Tensor, "M N H"]) -> Float[Tensor, "M D"]:
        return self.window.read(self.layer, queries)


def _see_all(layout: Layout, limits: Int[np.ndarray, "P"]) -> list[bool]:
    """Tells for each segment whether all of its tokens see all that it reads."""
    ends = list(accumulate(segment.num_places for segment in layout.segments))
    return [
        bool((limits[end - segment.num_places : end] >= segment.extent).all())
        for segment, end in zip(layout.segments, ends)
    ]
