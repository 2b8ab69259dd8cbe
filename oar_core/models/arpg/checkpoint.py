"""Published ARPG checkpoints: their keys as this library's."""

from collections.abc import Mapping

import torch
from torch import Tensor

from oar_core.errors import WeightsError
from oar_core.models.arpg.config import ArpgConfig
from oar_core.nn.rope import halved

State = Mapping[str, Tensor]


def arpg_state(state: State, config: ArpgConfig) -> dict[str, Tensor]:
    """The tensors of an `OarBackbone` of `config.native`. Raises WeightsError for a key that is missing."""
    try:
        return _native_state(state, config)
    except KeyError as error:
        raise WeightsError(f"this is no ARPG checkpoint of that size: it has no {error.args[0]}") from error


def _native_state(state: State, config: ArpgConfig) -> dict[str, Tensor]:
    heads, codes = config.num_heads, config.vocab_size
    table = state["embeddings.weight"]  # codes, the mask token, classes, the unconditional class
    found = {
        "embed_token.token.weight": table[:codes],
        "embed_query.shared": table[codes],
        "embed_condition.token.weight": table[codes + 1 : codes + 2 + config.num_classes],
        "context.norm.weight": state["layers.norm.weight"],
        "context.memory.weight": torch.cat([halved(state["layers.to_k.weight"], heads), state["layers.to_v.weight"]]),
        "query.norm.weight": state["norm.weight"],
        "query.head.weight": state["head.weight"],
    }
    for layer in range(config.num_layers):
        found |= _block(state, f"layers.self_dec.{layer}.", f"context.blocks.{layer}.")
        found |= _block(state, f"layers.cross_dec.{layer}.", f"query.blocks.{layer}.")
        query, key, value = (state[f"layers.self_dec.{layer}.attn.to_{name}.weight"] for name in "qkv")
        found[f"context.blocks.{layer}.attention.qkv.weight"] = torch.cat(
            [halved(query, heads), halved(key, heads), value]
        )
        asked = state[f"layers.cross_dec.{layer}.attn.to_q.weight"]
        found[f"query.blocks.{layer}.attention.query.weight"] = halved(asked, heads)
    return {name: tensor.float().clone() for name, tensor in found.items()}


def _block(state: State, theirs: str, ours: str) -> dict[str, Tensor]:
    gate_up = torch.cat([state[f"{theirs}ffn.w1.weight"], state[f"{theirs}ffn.w3.weight"]])
    return {
        f"{ours}attention_norm.weight": state[f"{theirs}attn_norm.weight"],
        f"{ours}feed_forward_norm.weight": state[f"{theirs}ffn_norm.weight"],
        f"{ours}attention.out.weight": state[f"{theirs}attn.proj.weight"],
        f"{ours}feed_forward.gate_up.weight": gate_up,
        f"{ours}feed_forward.down.weight": state[f"{theirs}ffn.w2.weight"],
    }
