"""Published Janus checkpoints: their keys as this library's, in the layout of `transformers` and in DeepSeek's own.

A checkpoint holds both networks: the backbone, and the image tokenizer, which is LlamaGen's VQ-16. What reads pictures
(`vision_model`, `aligner`) and the head for text are left out.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from oar_core.models.checkpoint import Shapes, read_fitting
from oar_core.models.janus.config import JanusConfig

State = Mapping[str, Tensor]

PROJECT = "Janus"
UNUSED = ("model.vision_model.", "model.aligner.", "lm_head.", "vision_model.", "aligner.", "language_model.lm_head.")
LANGUAGE, TOKENIZER = "model.language_model.", "model.vqmodel."  # in the layout of `transformers`

# DeepSeek's beginnings of keys, and those of `transformers`.
DEEPSEEK = {
    "language_model.model.": LANGUAGE,
    "gen_embed.": "model.generation_embeddings.",
    "gen_aligner.layers.0.": "model.generation_aligner.fc1.",
    "gen_aligner.layers.2.": "model.generation_aligner.hidden_layers.0.",
    "gen_head.output_mlp_projector.": "model.generation_head.proj_out.",
    "gen_head.vision_head.": "model.generation_head.vision_head.",
    "gen_vision_model.": TOKENIZER,
}
# Keys of the tokenizer in `transformers`, and as LlamaGen and DeepSeek have them.
TOKENIZER_NAMES = (
    (re.compile(r"^(encoder\.)down\."), r"\1conv_blocks."),
    (re.compile(r"^(decoder\.)up\."), r"\1conv_blocks."),
    (re.compile(r"(conv_blocks\.\d+\.)block\."), r"\1res."),
    (re.compile(r"(\.mid\.)block_1\."), r"\g<1>0."),
    (re.compile(r"(\.mid\.)attn_1\."), r"\g<1>1."),
    (re.compile(r"(\.mid\.)block_2\."), r"\g<1>2."),
)
STATISTICS = ("quantize.codebook_used",)
# What the backbone has beside its blocks.
OUTER = {
    f"{LANGUAGE}embed_tokens.weight": "embed_prompt.weight",
    f"{LANGUAGE}norm.weight": "norm.weight",
    "model.generation_embeddings.weight": "embed_code.weight",
    **{f"model.generation_aligner.fc1.{part}": f"align.0.{part}" for part in ("weight", "bias")},
    **{f"model.generation_aligner.hidden_layers.0.{part}": f"align.2.{part}" for part in ("weight", "bias")},
    **{f"model.generation_head.proj_out.{part}": f"head.0.{part}" for part in ("weight", "bias")},
    **{f"model.generation_head.vision_head.{part}": f"head.2.{part}" for part in ("weight", "bias")},
}


def janus_state(state: State, config: JanusConfig) -> dict[str, Tensor]:
    """The tensors of a `JanusBackbone`, in fp32, from a checkpoint of either layout. Raises WeightsError for one of
    other keys or sizes."""
    keys = {name: key for name, key in names(state).items() if not name.startswith(TOKENIZER)}
    found = read_fitting(Renamed(state, keys), network_shapes(config), PROJECT)
    native = {ours: found[theirs] for theirs, ours in OUTER.items()}
    for layer in range(config.num_layers):
        native |= _block(found, f"{LANGUAGE}layers.{layer}.", f"blocks.{layer}.")
    return {name: tensor.clone() for name, tensor in native.items()}


def tokenizer_state(state: State) -> dict[str, Tensor]:
    """The tensors of the image tokenizer, in fp32 and by LlamaGen's names, from a checkpoint of either layout."""
    return {name: state[key].float() for name, key in tokenizer_names(state).items()}


def names(keys: Iterable[str]) -> dict[str, str]:
    """Keys of a checkpoint, by those of `transformers`, without what makes no pictures."""
    found: dict[str, str] = {}
    for key in keys:
        if key.startswith(UNUSED):
            continue
        start = next((theirs for theirs in DEEPSEEK if key.startswith(theirs)), "")
        found[DEEPSEEK.get(start, "") + key.removeprefix(start)] = key
    return found


def tokenizer_names(keys: Iterable[str]) -> dict[str, str]:
    """Keys of the image tokenizer in a checkpoint, by LlamaGen's names."""
    found: dict[str, str] = {}
    for theirs, key in names(keys).items():
        name = theirs.removeprefix(TOKENIZER)
        if name == theirs or name in STATISTICS:
            continue
        for pattern, ours in TOKENIZER_NAMES:
            name = pattern.sub(ours, name)
        found[name] = key
    return found


class Renamed(Mapping[str, Tensor]):
    """Tensors by other names; each is read when it is asked for."""

    def __init__(self, state: State, keys: Mapping[str, str]) -> None:
        self._state, self._keys = state, keys

    def __getitem__(self, name: str) -> Tensor:
        return self._state[self._keys[name]]

    def __contains__(self, name: object) -> bool:
        return name in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def network_shapes(config: JanusConfig) -> Shapes:
    width, hidden = config.width, config.ffn_width
    shapes: dict[str, tuple[int, ...]] = {
        f"{LANGUAGE}embed_tokens.weight": (config.condition_vocab, width),
        f"{LANGUAGE}norm.weight": (width,),
        "model.generation_embeddings.weight": (config.vocab_size, config.code_width),
        "model.generation_aligner.fc1.weight": (width, config.code_width),
        "model.generation_aligner.fc1.bias": (width,),
        "model.generation_aligner.hidden_layers.0.weight": (width, width),
        "model.generation_aligner.hidden_layers.0.bias": (width,),
        "model.generation_head.proj_out.weight": (width, width),
        "model.generation_head.proj_out.bias": (width,),
        "model.generation_head.vision_head.weight": (config.vocab_size, width),
        "model.generation_head.vision_head.bias": (config.vocab_size,),
    }
    parts = {
        **{f"self_attn.{part}_proj": (width, width) for part in "qkvo"},
        **{f"mlp.{part}_proj": (hidden, width) for part in ("gate", "up")},
        "mlp.down_proj": (width, hidden),
        "input_layernorm": (width,),
        "post_attention_layernorm": (width,),
    }
    for layer in range(config.num_layers):
        shapes |= {f"{LANGUAGE}layers.{layer}.{part}.weight": shape for part, shape in parts.items()}
    return shapes


def _block(found: State, theirs: str, ours: str) -> dict[str, Tensor]:
    qkv = [found[f"{theirs}self_attn.{part}_proj.weight"] for part in "qkv"]
    gate_up = [found[f"{theirs}mlp.{part}_proj.weight"] for part in ("gate", "up")]
    return {
        f"{ours}attention_norm.weight": found[f"{theirs}input_layernorm.weight"],
        f"{ours}attention.qkv.weight": torch.cat(qkv),
        f"{ours}attention.out.weight": found[f"{theirs}self_attn.o_proj.weight"],
        f"{ours}feed_forward_norm.weight": found[f"{theirs}post_attention_layernorm.weight"],
        f"{ours}feed_forward.gate_up.weight": torch.cat(gate_up),
        f"{ours}feed_forward.down.weight": found[f"{theirs}mlp.down_proj.weight"],
    }
