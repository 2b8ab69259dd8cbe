"""Attention over keys and values that may come from this call or from a cache.

Layers take tokens in any leading shape `*S`: a batch of rows in training, one list of all rows' tokens over a cache.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from oar_core.nn.rope import Rotation, rotate


class KeyValueStore(Protocol):
    """A store for keys and values of new tokens, which yields those that they attend to."""

    def attend(
        self,
        layer: int,
        queries: Float[Tensor, "*S N H"],
        keys: Float[Tensor, "*S N H"],
        values: Float[Tensor, "*S N H"],
    ) -> Float[Tensor, "*S D"]:
        """Takes in what is new of a layer, then attends to all that each token may see; heads joined."""
        ...


class SharedMemory(Protocol):
    """Keys and values that are made once and attended to by several layers."""

    def attend(self, queries: Float[Tensor, "*S N H"]) -> Float[Tensor, "*S D"]: ...


@dataclass(frozen=True)
class Uncached:
    """Tokens attend to the tokens of the same call: training."""

    mask: Float[Tensor, "B 1 S T"]

    def attend(
        self,
        layer: int,
        queries: Float[Tensor, "B S N H"],
        keys: Float[Tensor, "B S N H"],
        values: Float[Tensor, "B S N H"],
    ) -> Float[Tensor, "B S D"]:
        del layer
        return attend(queries, keys.transpose(1, 2), values.transpose(1, 2), self.mask)


@dataclass(frozen=True)
class DenseMemory:
    """A shared memory of equal rows: training."""

    keys: Float[Tensor, "B N T H"]
    values: Float[Tensor, "B N T H"]
    mask: Float[Tensor, "B 1 #G T"]

    def attend(self, queries: Float[Tensor, "B G N H"]) -> Float[Tensor, "B G D"]:
        return attend(queries, self.keys, self.values, self.mask)


class SelfAttention(nn.Module):
    """Multi-head self-attention with rotary keys and queries; what a token may see is the store's business."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self, x: Float[Tensor, "*S D"], rotation: Rotation, layer: int, store: KeyValueStore
    ) -> Float[Tensor, "*S D"]:
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))
        # Queries and keys turn together: one pass over memory instead of two.
        queries, keys = rotate(qkv[..., :2, :, :], rotation).unbind(-3)
        return self.out(store.attend(layer, queries, keys, qkv[..., 2, :, :]))


class CrossAttention(nn.Module):
    """Multi-head attention from queries to keys and values that are made elsewhere and shared between layers.

    Keys are of `memory_width` (all heads together), the queries' own width unless given.
    """

    def __init__(self, width: int, num_heads: int, memory_width: int | None = None) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, memory_width or width, bias=False)
        self.out = nn.Linear(memory_width or width, width, bias=False)

    def forward(
        self, x: Float[Tensor, "*S width"], rotation: Rotation, memory: SharedMemory
    ) -> Float[Tensor, "*S width"]:
        return self.out(memory.attend(rotate(self.query(x).unflatten(-1, (self.num_heads, -1)), rotation)))


def attend(
    queries: Float[Tensor, "B G N H"],
    keys: Float[Tensor, "B N T H"],
    values: Float[Tensor, "B N T H"],
    mask: Float[Tensor, "B 1 #G T"] | None,
) -> Float[Tensor, "B G D"]:
    """Softmax attention, heads joined. Every query sees at least one key; without a mask it sees all."""
    queries = queries.transpose(1, 2)
    attention = F.scaled_dot_product_attention if queries.is_cuda else _plain_attention
    return attention(queries, keys, values, mask).transpose(1, 2).flatten(2)


def _plain_attention(
    queries: Float[Tensor, "B N G H"],
    keys: Float[Tensor, "B N T H"],
    values: Float[Tensor, "B N T H"],
    mask: Float[Tensor, "B 1 #G T"] | None,
) -> Float[Tensor, "B N G H"]:
    """Attention as two matrix products, for the CPU: PyTorch's fused kernel is no faster forward at these lengths, and
    its bf16 backward several times slower."""
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
    if mask is not None:
        scores = scores + mask
    return scores.softmax(dim=-1) @ values


def additive_mask(visible: Bool[Tensor, "*n"], dtype: torch.dtype) -> Float[Tensor, "*n"]:
    """0 where visible, minus infinity elsewhere: built once per pass; a boolean mask is converted in each layer."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, float("-inf"))


def compute_dtype(weight: Tensor) -> torch.dtype:
    """The dtype in which matrix products with this weight run, autocast considered."""
    device = weight.device.type
    if device == "meta":  # where sizes are counted, and nothing is multiplied
        return weight.dtype
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
