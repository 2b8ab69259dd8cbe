"""Published LPD checkpoints: their keys as this library's."""

from collections.abc import Mapping

import torch
from torch import Tensor

from oar_core.errors import WeightsError
from oar_core.models.lpd.config import LpdConfig

# Their name of a part of a block, and ours.
BLOCK = {
    "norm1": "attention_norm",
    "norm2": "feed_forward_norm",
    "attn.qkv": "qkv",
    "attn.proj": "out",
    "mlp.fc1": "up",
    "mlp.fc2": "down",
}


def lpd_state(state: Mapping[str, Tensor], config: LpdConfig) -> dict[str, Tensor]:
    """The tensors of an `LpdBackbone`. Raises WeightsError for a key that is missing."""
    try:
        found = {
            "embed_class.weight": torch.cat([state["class_emb.weight"], state["fake_latent"]]),
            "embed_token.weight": state["token_emb.weight"],
            "mask_token": state["mask_token"].flatten(),
            "place": state["pos_embed"].squeeze(0),
            "head.weight": state["head.weight"],
        }
        for theirs, ours in (("z_proj_ln", "input_norm"), ("norm", "norm")):
            found |= {f"{ours}.{part}": state[f"{theirs}.{part}"] for part in ("weight", "bias")}
        for layer in range(config.num_layers):
            for theirs, ours in BLOCK.items():
                for part in ("weight", "bias"):
                    found[f"blocks.{layer}.{ours}.{part}"] = state[f"blocks.{layer}.{theirs}.{part}"]
    except KeyError as error:
        raise WeightsError(f"this is no LPD checkpoint of that size: it has no {error.args[0]}") from error
    return {name: tensor.float().clone() for name, tensor in found.items()}
