"""A stack of SigLIP's layers: layer norms with biases, attention, and a feed-forward layer of tanh-GELU."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from oar_core.nn.attention import attend

EPS = 1e-6


class VitAttention(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "B S D"], mask: Float[Tensor, "1 1 S S"] | None) -> Float[Tensor, "B S D"]:
        queries, keys, values = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).unbind(-3)
        return self.out(attend(queries, keys.transpose(1, 2), values.transpose(1, 2), mask))


class VitBlock(nn.Module):
    def __init__(self, width: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, EPS)
        self.attention = VitAttention(width, num_heads)
        self.feed_forward_norm = nn.LayerNorm(width, EPS)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "B S D"], mask: Float[Tensor, "1 1 S S"] | None) -> Float[Tensor, "B S D"]:
        x = x + self.attention(self.attention_norm(x), mask)
        return x + self.down(F.gelu(self.up(self.feed_forward_norm(x)), approximate="tanh"))


class VitStack(nn.Module):
    """Learned places of patches on a square of `side`, which are stretched or shrunk to the patches that there are."""

    def __init__(self, width: int, num_heads: int, num_layers: int, hidden: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.place = nn.Parameter(torch.zeros(side * side, width))
        self.blocks = nn.ModuleList(VitBlock(width, num_heads, hidden) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width, EPS)

    def places(self, grid: tuple[int, int]) -> Float[Tensor, "P D"]:
        full = self.place.T.unflatten(1, (self.side, self.side))[None]
        if grid != (self.side, self.side):
            full = F.interpolate(full, grid, mode="bilinear", antialias=True, align_corners=False)
        return full[0].flatten(1).T

    def forward(
        self, x: Float[Tensor, "B S D"], mask: Float[Tensor, "1 1 S S"] | None = None
    ) -> Float[Tensor, "B S D"]:
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)
