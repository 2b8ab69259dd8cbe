"""Tiny networks in the layout of the published checkpoints, and what their own rules make of them, written out here in
full: no file of reference numbers exists."""

import torch
import torch.nn.functional as F
from torch import Tensor

CODES, WIDTH, HEADS, LAYERS, HIDDEN, CLASSES, GROUP, TOKENS = 24, 16, 2, 2, 24, 5, 4, 16
SIZE, PATCH, SIDE = 32, 8, 4  # pixels, pixels of a patch, places a side
VIT = {"encoder": (24, 3, 3, 40), "decoder": (16, 2, 2, 36)}  # width, heads, layers, hidden
BACKBONE_GIVEN = {"num_heads": HEADS}
TOKENIZER_GIVEN = {"image_size": [SIZE, SIZE], "encoder_heads": 3, "decoder_heads": 2}


def backbone_state(seed: int = 0) -> dict[str, Tensor]:
    made = _Maker(seed)
    state = {
        "tok_embeddings.weight": made.table(CODES, WIDTH),
        "cls_embedding.embedding_table.weight": made.table(CLASSES + 1, WIDTH),
        "spe_tok_embeddings.special_embeddings.weight": made.table(GROUP - 1, WIDTH),
        "norm.weight": made.gain(WIDTH),
        "output.weight": made.table(CODES, WIDTH),
    }
    for layer in range(LAYERS):
        state |= {
            f"layers.{layer}.attention.wqkv.weight": made.table(3 * WIDTH, WIDTH),
            f"layers.{layer}.attention.wo.weight": made.table(WIDTH, WIDTH),
            f"layers.{layer}.feed_forward.w1.weight": made.table(HIDDEN, WIDTH),
            f"layers.{layer}.feed_forward.w3.weight": made.table(HIDDEN, WIDTH),
            f"layers.{layer}.feed_forward.w2.weight": made.table(WIDTH, HIDDEN),
            f"layers.{layer}.attention_norm.weight": made.gain(WIDTH),
            f"layers.{layer}.ffn_norm.weight": made.gain(WIDTH),
        }
    return state


def tokenizer_state(seed: int = 1) -> dict[str, Tensor]:
    made = _Maker(seed)
    (encoder, *_), (decoder, *_) = VIT["encoder"], VIT["decoder"]
    pixels = 3 * PATCH**2
    state = {
        "quantize.embedding.weight": made.table(CODES, 8),
        "quantize.codebook_used": torch.zeros(64),
        "quant_conv.weight": made.table(8, encoder),
        "quant_conv.bias": made.table(8),
        "post_quant_conv.weight": made.table(decoder, 8),
        "post_quant_conv.bias": made.table(decoder),
        "refine_conv.weight": made.table(encoder, 8),
        "refine_conv.bias": made.table(encoder),
        "encoder.latent_tokens": made.table(1, TOKENS, encoder),
        "encoder.refined_tokens": made.table(1, TOKENS, encoder),
        "encoder.visual_model.embeddings.patch_embedding.weight": made.table(encoder, pixels),
        "encoder.visual_model.embeddings.patch_embedding.bias": made.table(encoder),
        "decoder.mask_token": made.table(1, 1, decoder),
        "decoder.to_pixel.model.weight": made.table(pixels, decoder),
        "decoder.to_pixel.model.bias": made.table(pixels),
        "repa_model.visual_model.post_layernorm.weight": made.table(4),
        "global_token_proj.0.weight": made.table(4, 8),
    }
    for part, (width, _, num_layers, hidden) in VIT.items():
        theirs = f"{part}.visual_model."
        state |= {
            f"{part}.latent_pos_embed": made.table(1, TOKENS, width),
            f"{theirs}embeddings.position_embedding.weight": made.table(SIDE**2, width),
            f"{theirs}post_layernorm.weight": made.gain(width),
            f"{theirs}post_layernorm.bias": made.table(width),
        }
        shapes = {"mlp.fc1": (hidden, width), "mlp.fc2": (width, hidden)}
        shapes |= {f"self_attn.{name}_proj": (width, width) for name in ("q", "k", "v", "out")}
        for layer in range(num_layers):
            own = f"{theirs}encoder.layers.{layer}."
            for norm in ("layer_norm1", "layer_norm2"):
                state |= {f"{own}{norm}.weight": made.gain(width), f"{own}{norm}.bias": made.table(width)}
            for name, shape in shapes.items():
                state |= {f"{own}{name}.weight": made.table(*shape), f"{own}{name}.bias": made.table(shape[0])}
    return state


class _Maker:
    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def table(self, *shape: int) -> Tensor:
        return 0.3 * torch.randn(*shape, generator=self._generator)

    def gain(self, width: int) -> Tensor:
        return 1 + 0.2 * torch.randn(width, generator=self._generator)


# the backbone's rules


def logits(state: dict[str, Tensor], label: int, tokens: list[int]) -> Tensor:
    """At each entry of `[class] tokens, and pads behind the first group`, whole and without a cache."""
    embedded = [state["cls_embedding.embedding_table.weight"][label][None]]
    embedded.append(state["tok_embeddings.weight"][tokens[:GROUP]])
    if len(tokens) >= GROUP:
        embedded.append(state["spe_tok_embeddings.special_embeddings.weight"])
        embedded.append(state["tok_embeddings.weight"][tokens[GROUP:]])
    x = torch.cat(embedded)
    count = len(x)
    visible = torch.tensor(
        [[j <= i if i < GROUP else j // GROUP <= i // GROUP for j in range(count)] for i in range(count)]
    )
    for layer in range(LAYERS):
        own = f"layers.{layer}."
        y = _rms(x, state[f"{own}attention_norm.weight"])
        query, key, value = (y @ state[f"{own}attention.wqkv.weight"].T).view(count, 3, HEADS, -1).unbind(1)
        score = torch.einsum("ihd,jhd->hij", _turned(query), _turned(key)) * (WIDTH // HEADS) ** -0.5
        share = score.masked_fill(~visible, float("-inf")).softmax(-1)
        x = x + torch.einsum("hij,jhd->ihd", share, value).flatten(1) @ state[f"{own}attention.wo.weight"].T
        y = _rms(x, state[f"{own}ffn_norm.weight"])
        gate, up = (y @ state[f"{own}feed_forward.{name}.weight"].T for name in ("w1", "w3"))
        x = x + (F.silu(gate) * up) @ state[f"{own}feed_forward.w2.weight"].T
    return _rms(x, state["norm.weight"]) @ state["output.weight"].T


def _rms(x: Tensor, gain: Tensor) -> Tensor:
    return x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * gain


def _turned(x: Tensor) -> Tensor:
    """Neighbouring numbers of a head turn as pairs, half of them with the row and half with the column of the place
    before; those of the class become zero."""
    count, width = len(x), x.shape[-1]
    out = torch.zeros_like(x)
    for entry in range(1, count):
        row, column = divmod(entry - 1, GROUP)
        for pair in range(width // 2):
            place, index = (row, pair) if pair < width // 4 else (column, pair - width // 4)
            angle = torch.tensor(place * 10_000.0 ** (-index / (width // 4)))
            first, second = x[entry, :, 2 * pair], x[entry, :, 2 * pair + 1]
            out[entry, :, 2 * pair] = first * angle.cos() - second * angle.sin()
            out[entry, :, 2 * pair + 1] = second * angle.cos() + first * angle.sin()
    return out


# the tokenizer's rules


def encode(state: dict[str, Tensor], image: Tensor) -> list[int]:
    patches = _cut(image) @ state["encoder.visual_model.embeddings.patch_embedding.weight"].T
    patches = patches + state["encoder.visual_model.embeddings.patch_embedding.bias"]
    patches = patches + state["encoder.visual_model.embeddings.position_embedding.weight"]
    queries = state["encoder.latent_tokens"][0] + state["encoder.latent_pos_embed"][0]
    count = len(patches)

    def sees(i: int, j: int) -> bool:
        if i < count or j < count:
            return j < count
        i, j = i - count, j - count
        return j <= i if i < GROUP else j // GROUP <= i // GROUP

    size = count + TOKENS
    visible = torch.tensor([[sees(i, j) for j in range(size)] for i in range(size)])
    found = _stack(state, "encoder", torch.cat([patches, queries]), visible)[count:]
    vectors = F.normalize(found @ state["quant_conv.weight"].T + state["quant_conv.bias"], dim=-1)
    codes = F.normalize(state["quantize.embedding.weight"], dim=-1)
    return torch.cdist(vectors, codes).argmin(-1).tolist()


def decode(state: dict[str, Tensor], tokens: list[int], side: int) -> Tensor:
    """3, Y, X of a canvas of `side` patches a side."""
    codes = F.normalize(state["quantize.embedding.weight"], dim=-1)[tokens]
    known = codes @ state["post_quant_conv.weight"].T + state["post_quant_conv.bias"]
    known = known + state["decoder.latent_pos_embed"][0, : len(tokens)]
    places = state["decoder.visual_model.embeddings.position_embedding.weight"].T.view(1, -1, SIDE, SIDE)
    places = F.interpolate(places, (side, side), mode="bilinear", antialias=True, align_corners=False)
    patches = state["decoder.mask_token"][0] + places[0].flatten(1).T
    count = side**2
    visible = torch.ones(count + len(tokens), count + len(tokens), dtype=torch.bool)
    found = _stack(state, "decoder", torch.cat([patches, known]), visible)[:count]
    pixels = found @ state["decoder.to_pixel.model.weight"].T + state["decoder.to_pixel.model.bias"]
    image = torch.zeros(3, side * PATCH, side * PATCH)
    for number, patch in enumerate(pixels):
        top, left = (PATCH * part for part in divmod(number, side))
        image[:, top : top + PATCH, left : left + PATCH] = patch.view(PATCH, PATCH, 3).permute(2, 0, 1)
    return image


def _cut(image: Tensor) -> Tensor:
    """Row by row; in a patch the colours change fastest."""
    steps = range(0, SIZE, PATCH)
    return torch.stack(
        [image[:, y : y + PATCH, x : x + PATCH].permute(1, 2, 0).flatten() for y in steps for x in steps]
    )


def _stack(state: dict[str, Tensor], part: str, x: Tensor, visible: Tensor) -> Tensor:
    width, num_heads, num_layers, _ = VIT[part]
    for layer in range(num_layers):
        own = f"{part}.visual_model.encoder.layers.{layer}."

        def linear(name: str, y: Tensor, own: str = own) -> Tensor:
            return y @ state[f"{own}{name}.weight"].T + state[f"{own}{name}.bias"]

        y = F.layer_norm(x, (width,), state[f"{own}layer_norm1.weight"], state[f"{own}layer_norm1.bias"], 1e-6)
        query, key, value = (
            linear(f"self_attn.{name}_proj", y).view(len(x), num_heads, -1) for name in ("q", "k", "v")
        )
        score = torch.einsum("ihd,jhd->hij", query, key) * (width // num_heads) ** -0.5
        share = score.masked_fill(~visible, float("-inf")).softmax(-1)
        x = x + linear("self_attn.out_proj", torch.einsum("hij,jhd->ihd", share, value).flatten(1))
        y = F.layer_norm(x, (width,), state[f"{own}layer_norm2.weight"], state[f"{own}layer_norm2.bias"], 1e-6)
        x = x + linear("mlp.fc2", F.gelu(linear("mlp.fc1", y), approximate="tanh"))
    theirs = f"{part}.visual_model.post_layernorm"
    return F.layer_norm(x, (width,), state[f"{theirs}.weight"], state[f"{theirs}.bias"], 1e-6)
