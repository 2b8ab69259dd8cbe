"""A model's folder of the golden Janus."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from oar_core.models.chat import ChatConditioner
from oar_core.models.janus.checkpoint import TOKENIZER as THEIR_TOKENIZER
from oar_core.models.janus.checkpoint import janus_state, tokenizer_state
from oar_core.models.janus.config import JanusConfig
from oar_core.models.janus.importer import CONVERSATION
from oar_core.models.load import FORMAT, family
from oar_core.models.model import BACKBONE, CONFIG, TOKENIZER
from tests.models.golden import Golden
from tests.models.janus.reference import BEGIN_OF_IMAGE, BOS, HEADS, HIDDEN, LAYERS, NUM_CODES, PAD, VOCAB, WIDTH

GRID = (4, 4)
BACKBONE_CONFIG = JanusConfig(
    grid=GRID,
    vocab_size=NUM_CODES,
    condition_vocab=VOCAB,
    max_condition=24,
    width=WIDTH,
    num_heads=HEADS,
    num_layers=LAYERS,
    ffn_width=HIDDEN,
)
TOKENIZER_CONFIG = {
    "grid": GRID, "width": 32, "multipliers": (1, 1), "encoder_blocks": 1, "vocab_size": NUM_CODES, "code_width": 8,
    "hidden_width": 32,
}  # fmt: skip
WORDS = ("a", "an", "red", "blue", "green", "orc", "hen", "bird", "with", "golden", "boots", "on", "snow", ":", ",")


def text_tokenizer() -> Tokenizer:
    """Of whole words, with the special tokens of the golden prompts."""
    special = {"<unknown>": 0, CONVERSATION.start: BOS, CONVERSATION.pad: PAD, CONVERSATION.begin: BEGIN_OF_IMAGE}
    words = {word: number for number, word in enumerate((*WORDS, "<|User|>", "<|Assistant|>"), len(special))}
    tokenizer = Tokenizer(models.WordLevel({**special, **words}, unk_token="<unknown>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in ("<|User|>", "<|Assistant|>")])
    return tokenizer


# Names of the image tokenizer's parts: this library's, and those of `transformers`.
THEIR_NAMES = {
    "encoder.conv_blocks.": "encoder.down.", "decoder.conv_blocks.": "decoder.up.", ".res.": ".block.",
    ".mid.0.": ".mid.block_1.", ".mid.1.": ".mid.attn_1.", ".mid.2.": ".mid.block_2.",
}  # fmt: skip


def their_key(name: str) -> str:
    """Of a tensor of the image tokenizer, in the layout of `transformers`."""
    for ours, theirs in THEIR_NAMES.items():
        name = name.replace(ours, theirs)
    return THEIR_TOKENIZER + name


def whole_state() -> dict[str, torch.Tensor]:
    """The golden checkpoint in bf16, with an encoder of zeros: the golden file has none."""
    found = {key: tensor.bfloat16() for key, tensor in Golden.load("janus").state.items()}
    whole = family("janus").build_tokenizer("janus", TOKENIZER_CONFIG).state_dict()
    return {**{their_key(name): torch.zeros_like(tensor).bfloat16() for name, tensor in whole.items()}, **found}


def write_janus_model(folder: Path, name: str = "janus") -> None:
    """With an encoder of zeros: the golden file has none, and no picture that is made needs it."""
    folder.mkdir(parents=True)
    state = Golden.load("janus").state
    tokenizer = {"family": "janus", **TOKENIZER_CONFIG}
    whole = family("janus").build_tokenizer("janus", TOKENIZER_CONFIG).state_dict()
    zeros = {key: torch.zeros_like(tensor) for key, tensor in whole.items()}
    save_file(janus_state(state, BACKBONE_CONFIG), folder / BACKBONE)
    save_file({**zeros, **tokenizer_state(state)}, folder / TOKENIZER)
    ChatConditioner(text_tokenizer(), CONVERSATION).save(folder)
    stored = {
        "format": FORMAT,
        "family": "janus",
        "name": name,
        "backbone": BACKBONE_CONFIG.to_dict(),
        "tokenizer": tokenizer,
        "conditioner": "chat",
        "defaults": {
            "order": "raster", "steps": 16, "group_sizes": "constant", "guidance": 5.0, "temperature": 1.0,
            "top_k": 0, "top_p": 1.0,
        },
        "example_prompts": ["a red hen", "an orc with golden boots"],
    }  # fmt: skip
    (folder / CONFIG).write_text(json.dumps(stored))
