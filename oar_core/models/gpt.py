"""The transformer of LlamaGen and of those that build on it: RMS norms, 2-D rotary angles, gated feed-forward layers.

Tokens of a condition have no place on the grid: their queries and keys are zero, so that all see them alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from oar_core.config import check_heads
from oar_core.models.class_config import ClassTransformerConfig
from oar_core.nn.attention import KeyValueStore, SelfAttention, compute_dtype
from oar_core.nn.block import Block
from oar_core.nn.kv_cache import KVCache
from oar_core.nn.norm import make_norm
from oar_core.nn.rope import RotaryTable, halved

ROTARY_BASE = 10_000.0


@dataclass(frozen=True)
class GptConfig(ClassTransformerConfig):
    ffn_width: int = 2816

    def __post_init__(self) -> None:
        check_heads(self.width, self.num_heads, 4)


class Gpt(nn.Module):
    """Embedded tokens in, states from which codes are predicted out. What a token sees is the store's business."""

    def __init__(self, config: GptConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_token = nn.Embedding(config.vocab_size, config.width)
        self.rotary = RotaryTable(config.grid, config.head_width, ROTARY_BASE, is_nowhere_zero=True)
        self.blocks = nn.ModuleList(
            Block(config.width, SelfAttention(config.width, config.num_heads), norm="rms", ffn_width=config.ffn_width)
            for _ in range(config.num_layers)
        )
        self.norm = make_norm("rms", config.width)
        self.head = nn.Linear(config.width, config.vocab_size, bias=False)

    @property
    def nowhere(self) -> int:
        """The position of a condition's tokens."""
        return self.rotary.nowhere

    @property
    def dtype(self) -> torch.dtype:
        """The number format of states and logits."""
        return compute_dtype(self.embed_token.weight)

    def forward(
        self, x: Float[Tensor, "*S D"], positions: Int[Tensor, "*S"], store: KeyValueStore
    ) -> Float[Tensor, "*S D"]:
        rotation = self.rotary(positions, self.dtype)
        for layer, block in enumerate(self.blocks):
            x = block(x, rotation, layer, store)
        return self.norm(x)

    def new_cache(self, num_slots: int, capacity: int) -> KVCache:
        return KVCache.beside(
            self.embed_token.weight,
            num_layers=self.config.num_layers,
            num_slots=num_slots,
            num_heads=self.config.num_heads,
            capacity=capacity,
            head_width=self.config.head_width,
        )


def published_shapes(config: GptConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of a `Gpt`'s tensors, by the keys of published checkpoints."""
    width, hidden = config.width, config.ffn_width
    shapes: dict[str, tuple[int, ...]] = {
        "tok_embeddings.weight": (config.vocab_size, width),
        "norm.weight": (width,),
        "output.weight": (config.vocab_size, width),
    }
    for layer in range(config.num_layers):
        parts = {
            "attention.wqkv": (3 * width, width),
            "attention.wo": (width, width),
            "feed_forward.w1": (hidden, width),
            "feed_forward.w3": (hidden, width),
            "feed_forward.w2": (width, hidden),
            "attention_norm": (width,),
            "ffn_norm": (width,),
        }
        shapes |= {f"layers.{layer}.{part}.weight": shape for part, shape in parts.items()}
    return shapes


def native_tensors(state: Mapping[str, Tensor], config: GptConfig) -> dict[str, Tensor]:
    """The tensors of a `Gpt`, from those of `published_shapes`."""
    found = {
        "embed_token.weight": state["tok_embeddings.weight"],
        "norm.weight": state["norm.weight"],
        "head.weight": state["output.weight"],
    }
    for layer in range(config.num_layers):
        theirs, ours = f"layers.{layer}.", f"blocks.{layer}."
        query, key, value = state[f"{theirs}attention.wqkv.weight"].chunk(3)
        turned = [halved(part, config.num_heads) for part in (query, key)]
        gate_up = [state[f"{theirs}feed_forward.{part}.weight"] for part in ("w1", "w3")]
        found |= {
            f"{ours}attention.qkv.weight": torch.cat([*turned, value]),
            f"{ours}attention.out.weight": state[f"{theirs}attention.wo.weight"],
            f"{ours}feed_forward.gate_up.weight": torch.cat(gate_up),
            f"{ours}feed_forward.down.weight": state[f"{theirs}feed_forward.w2.weight"],
            f"{ours}attention_norm.weight": state[f"{theirs}attention_norm.weight"],
            f"{ours}feed_forward_norm.weight": state[f"{theirs}ffn_norm.weight"],
        }
    return found
