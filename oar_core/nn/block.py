"""The layers that stacks are made of."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from oar_core.nn.attention import KeyValueStore
from oar_core.nn.feed_forward import FeedForward
from oar_core.nn.norm import make_norm


class Block(nn.Module):
    """Attention, then a feed-forward network, each of which adds to its input what it makes of it normed."""

    def __init__(
        self, width: int, attention: nn.Module, dropout: float = 0.0, *, norm: str = "layer", ffn_width: int = 0
    ) -> None:
        super().__init__()
        self.attention_norm = make_norm(norm, width)
        self.attention = attention
        self.feed_forward_norm = make_norm(norm, width)
        self.feed_forward = FeedForward(width, ffn_width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "*S D"], *seen: object) -> Float[Tensor, "*S D"]:
        """`seen` is what the attention takes beside its input: rotation, and keys and values."""
        x = x + self.dropout(self.attention(self.attention_norm(x), *seen))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class PlainBlock(nn.Module):
    """Self-attention, then two layers with a GELU between them, behind layer norms, all with biases."""

    def __init__(self, width: int, num_heads: int, expansion: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.feed_forward_norm = nn.LayerNorm(width, eps=eps)
        self.up = nn.Linear(width, expansion * width)
        self.down = nn.Linear(expansion * width, width)

    def forward(self, x: Float[Tensor, "*S D"], layer: int, store: KeyValueStore) -> Float[Tensor, "*S D"]:
        qkv = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.num_heads, -1))
        x = x + self.out(store.attend(layer, *qkv.unbind(-3)))
        return x + self.down(F.gelu(self.up(self.feed_forward_norm(x))))
