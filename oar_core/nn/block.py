"""The layer that every stack is made of."""

from jaxtyping import Float
from torch import Tensor, nn

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
