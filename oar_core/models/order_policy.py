"""The order policy: which of the remaining positions a picture should be asked for next.

A Plackett-Luce model over orders: each remaining position has one score, and the next one is theirs by softmax. The
scores come from a thin head that looks at the backbone's shared memory from every candidate position, much as the query
stack does, at a small share of its cost. It sees the committed context alone, never a draw of the same step, so every
order that it chooses is a valid factorisation of the model's distribution.
"""

from typing import Protocol

from jaxtyping import Float, Int
from torch import Tensor, nn

from oar_core.config import OrderPolicyConfig
from oar_core.nn.attention import CrossAttention, SharedMemory
from oar_core.nn.block import Block
from oar_core.nn.embed import QueryEmbedding
from oar_core.nn.initial import INIT_STD, draw_weights
from oar_core.nn.norm import Norm
from oar_core.nn.rope import Rotation


class MemorySizes(Protocol):
    """Sizes of a backbone's memory, from its config."""

    @property
    def num_tokens(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def num_heads(self) -> int: ...


class OrderPolicy(nn.Module):
    """Scores of candidate positions, each independent of which others are asked about."""

    def __init__(self, config: OrderPolicyConfig, backbone: MemorySizes) -> None:
        super().__init__()
        self.config = config
        self.embed_query = QueryEmbedding(backbone.num_tokens, config.width)
        self.blocks = nn.ModuleList(
            Block(config.width, CrossAttention(config.width, backbone.num_heads, memory_width=backbone.width))
            for _ in range(config.num_layers)
        )
        self.norm = Norm(config.width)
        self.head = nn.Linear(config.width, 1, bias=False)
        self._initialise()

    def forward(self, candidates: Int[Tensor, "*S"], rotation: Rotation, memory: SharedMemory) -> Float[Tensor, "*S"]:
        """fp32 scores from what the candidates see of the shared memory; only their differences count."""
        x = self.embed_query(candidates)
        for block in self.blocks:
            x = block(x, rotation, memory)
        # A product, not a linear layer, which autocast would take back to half precision, where many scores tie.
        return (self.norm(x).float() * self.head.weight.float()).sum(dim=-1)

    def _initialise(self) -> None:
        draw_weights(self)
        nn.init.trunc_normal_(self.embed_query.shared, std=INIT_STD)
        assert self.embed_query.position is not None
        nn.init.zeros_(self.embed_query.position.weight)
