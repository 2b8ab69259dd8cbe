"""The gated feed-forward layer of a transformer block."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class FeedForward(nn.Module):
    """SwiGLU (arXiv 2002.05202): `down(silu(gate(x)) * up(x))`, gate and up as one matrix product."""

    def __init__(self, width: int, hidden: int = 0) -> None:
        """`hidden` is `hidden_width(width)` unless given."""
        super().__init__()
        hidden = hidden or hidden_width(width)
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Float[Tensor, "*n D"]) -> Float[Tensor, "*n D"]:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


def hidden_width(width: int) -> int:
    """8/3 of the width, which makes three matrices as large as the usual two of 4x; rounded up to a multiple of 64."""
    return -(-8 * width // (3 * 64)) * 64
