"""Attention of tokens that each see an earlier context and themselves, never each other, and that leave nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from oar_core.nn.attention import Uncached, additive_mask
from oar_core.nn.kv_cache import KVCache
from oar_core.nn.tables import moved, places_within


@dataclass(frozen=True)
class Recording(Uncached):
    """`Uncached`, which keeps the keys and values of every layer."""

    keys: list[Float[Tensor, "B N S H"]] = field(default_factory=list[Tensor])
    values: list[Float[Tensor, "B N S H"]] = field(default_factory=list[Tensor])

    def attend(
        self,
        layer: int,
        queries: Float[Tensor, "B S N H"],
        keys: Float[Tensor, "B S N H"],
        values: Float[Tensor, "B S N H"],
    ) -> Float[Tensor, "B S D"]:
        assert layer == len(self.keys), "layers are passed once, in turn"
        self.keys.append(keys.transpose(1, 2))
        self.values.append(values.transpose(1, 2))
        return super().attend(layer, queries, keys, values)


@dataclass(frozen=True)
class BesideContext:
    """A `KeyValueStore` in training: the context are keys and values of every layer."""

    keys: Sequence[Float[Tensor, "B N T H"]]
    values: Sequence[Float[Tensor, "B N T H"]]
    mask: Float[Tensor, "B 1 G T"]

    def attend(
        self,
        layer: int,
        queries: Float[Tensor, "B G N H"],
        keys: Float[Tensor, "B G N H"],
        values: Float[Tensor, "B G N H"],
    ) -> Float[Tensor, "B G D"]:
        return attend_beside(queries, keys, values, self.keys[layer], self.values[layer], self.mask)


class BesideCache:
    """A `KeyValueStore` over a cache: the context are the entries of the token's row."""

    def __init__(self, cache: KVCache, slots: Int[Tensor, "B"], counts: Sequence[int]) -> None:
        """The tokens are one list, `counts[b]` of row b."""
        asked, width = np.asarray(counts, dtype=np.int64), max(counts, default=0)
        places = places_within(np.arange(len(asked)) * width, asked)
        lengths = cache.lengths[slots.cpu()]
        self._cache, self._extent = cache, int(lengths.max())
        self._shape = len(asked), width
        tables = moved([slots.cpu().numpy(), places, lengths.numpy()], cache.keys.device)
        self._slots, self._places, on_device = tables
        visible = torch.arange(self._extent, device=cache.keys.device) < on_device[:, None, None, None]
        self._mask = additive_mask(visible, cache.keys.dtype)

    def attend(
        self, layer: int, queries: Float[Tensor, "M N H"], keys: Float[Tensor, "M N H"], values: Float[Tensor, "M N H"]
    ) -> Float[Tensor, "M D"]:
        joined = attend_beside(
            self._on_grid(queries),
            self._on_grid(keys),
            self._on_grid(values),
            self._cache.keys[layer][self._slots, :, : self._extent],
            self._cache.values[layer][self._slots, :, : self._extent],
            self._mask,
        )
        return joined.flatten(0, 1)[self._places].to(queries.dtype)

    def _on_grid(self, listed: Float[Tensor, "M N H"]) -> Float[Tensor, "B G N H"]:
        rows, width = self._shape
        grid = listed.new_zeros(rows * width, *listed.shape[1:], dtype=self._cache.keys.dtype)
        grid[self._places] = listed.to(grid.dtype)
        return grid.unflatten(0, (rows, width))


def attend_beside(
    queries: Float[Tensor, "B G N H"],
    own_keys: Float[Tensor, "B G N H"],
    own_values: Float[Tensor, "B G N H"],
    keys: Float[Tensor, "B N T H"],
    values: Float[Tensor, "B N T H"],
    mask: Float[Tensor, "B 1 #G T"],
) -> Float[Tensor, "B G D"]:
    """Softmax attention to what the mask leaves of the context, and to the token's own key; heads joined."""
    queries, own_keys, own_values = (table.transpose(1, 2) for table in (queries, own_keys, own_values))
    queries = queries * queries.shape[-1] ** -0.5
    own = (queries * own_keys).sum(dim=-1, keepdim=True)
    weights = torch.cat([queries @ keys.transpose(-1, -2) + mask, own], dim=-1).softmax(dim=-1)
    mixed = weights[..., :-1] @ values + weights[..., -1:] * own_values
    return mixed.transpose(1, 2).flatten(2)
