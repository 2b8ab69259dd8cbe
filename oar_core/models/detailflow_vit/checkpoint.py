"""Published DetailFlow tokenizers: their keys as this library's."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from oar_core.models.detailflow_vit.config import DetailVitConfig

VISION = "visual_model."
# What training alone needs: statistics, the second pass of the encoder, and the network of the alignment.
IGNORED = (
    "quantize.codebook_used",
    "encoder.refined_tokens",
    "refine_conv.",
    "repa_model.",
    "projection.",
    "global_token_proj.",
)


def detail_vit_state(state: Mapping[str, Tensor], config: DetailVitConfig) -> dict[str, Tensor]:
    """The tensors of a `DetailVitTokenizer`, in fp32."""
    size = config.patch_size
    patch = state[f"encoder.{VISION}embeddings.patch_embedding.weight"].float()
    pixels = {name: state[f"decoder.to_pixel.model.{name}"].float() for name in ("weight", "bias")}
    return {
        **_stack(state, "encoder", config.encoder_layers),
        **_stack(state, "decoder", config.decoder_layers),
        "encoder.embed_patch.weight": _colour_first(patch.T, size).T,
        "encoder.embed_patch.bias": state[f"encoder.{VISION}embeddings.patch_embedding.bias"].float(),
        "encoder.queries": state["encoder.latent_tokens"][0].float(),
        "encoder.query_place": state["encoder.latent_pos_embed"][0].float(),
        "encoder.project.weight": state["quant_conv.weight"].float(),
        "encoder.project.bias": state["quant_conv.bias"].float(),
        "decoder.embed_code.weight": state["post_quant_conv.weight"].float(),
        "decoder.embed_code.bias": state["post_quant_conv.bias"].float(),
        "decoder.code_place": state["decoder.latent_pos_embed"][0].float(),
        "decoder.patch": state["decoder.mask_token"][0, 0].float(),
        "decoder.to_pixels.weight": _colour_first(pixels["weight"], size),
        "decoder.to_pixels.bias": _colour_first(pixels["bias"], size),
        "codebook": F.normalize(state["quantize.embedding.weight"].float(), dim=-1),
    }


def _stack(state: Mapping[str, Tensor], part: str, num_layers: int) -> dict[str, Tensor]:
    theirs, ours = f"{part}.{VISION}", f"{part}.stack."
    found = {
        f"{ours}place": state[f"{theirs}embeddings.position_embedding.weight"].float(),
        f"{ours}norm.weight": state[f"{theirs}post_layernorm.weight"].float(),
        f"{ours}norm.bias": state[f"{theirs}post_layernorm.bias"].float(),
    }
    names = {
        "attention_norm": "layer_norm1",
        "feed_forward_norm": "layer_norm2",
        "attention.out": "self_attn.out_proj",
        "up": "mlp.fc1",
        "down": "mlp.fc2",
    }
    for layer in range(num_layers):
        layer_theirs, layer_ours = f"{theirs}encoder.layers.{layer}.", f"{ours}blocks.{layer}."
        for kind in ("weight", "bias"):
            qkv = [state[f"{layer_theirs}self_attn.{name}_proj.{kind}"].float() for name in ("q", "k", "v")]
            found[f"{layer_ours}attention.qkv.{kind}"] = torch.cat(qkv)
            for own, name in names.items():
                found[f"{layer_ours}{own}.{kind}"] = state[f"{layer_theirs}{name}.{kind}"].float()
    return found


def _colour_first(rows: Float[Tensor, "P *D"], size: int) -> Float[Tensor, "P *D"]:
    """Rows of a patch's numbers, whose colours change fastest, as rows whose colours change slowest."""
    return rows.unflatten(0, (size, size, 3)).movedim(2, 0).flatten(0, 2)
