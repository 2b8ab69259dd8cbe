"""Import of published Janus checkpoints, which hold the backbone and the image tokenizer."""

from pathlib import Path
from typing import Any

from oar_core.errors import ConfigError, WeightsError
from oar_core.models.base import Conditioner
from oar_core.models.chat import ChatConditioner, Conversation, read_tokenizer
from oar_core.models.importer import (
    UNTRUNCATED,
    Config,
    Importer,
    Publication,
    Shapes,
    checked,
    count_layers,
    heads,
    reader,
    settle_config,
    shape,
)
from oar_core.models.janus.checkpoint import (
    DEEPSEEK,
    LANGUAGE,
    STATISTICS,
    TOKENIZER,
    UNUSED,
    janus_state,
    names,
    tokenizer_names,
    tokenizer_state,
)
from oar_core.models.janus.config import JanusConfig
from oar_core.models.vq_sizes import infer_vq

CODES = "model.generation_embeddings.weight"
HEADS = {2048: 16, 4096: 32}  # of the published widths
TITLES = {2048: "Janus-Pro-1B", 4096: "Janus-Pro-7B"}
# Keys of the backbone, and of the image tokenizer, in both layouts.
BACKBONE_KEYS = tuple(start for pair in DEEPSEEK.items() if TOKENIZER not in pair for start in pair)
TOKENIZER_KEYS = tuple(start for pair in DEEPSEEK.items() if TOKENIZER in pair for start in pair)
CONVERSATION = Conversation(
    template="<|User|>: {prompt}\n\n<|Assistant|>:<begin_of_image>",
    start="<｜begin▁of▁sentence｜>",
    pad="<｜▁pad▁｜>",
    begin="<begin_of_image>",
)


def _recognises(shapes: Shapes) -> bool:
    known = names(shapes)
    return CODES in known and f"{LANGUAGE}embed_tokens.weight" in known


def _infer(shapes: Shapes, given: Config) -> dict[str, Any]:
    renamed = {name: shapes[key] for name, key in names(shapes).items()}
    condition_vocab, width = shape(renamed, f"{LANGUAGE}embed_tokens.weight", 2)
    vocab_size, code_width = shape(renamed, CODES, 2)
    found = {
        "vocab_size": vocab_size,
        "code_width": code_width,
        "condition_vocab": condition_vocab,
        "width": width,
        "num_heads": heads(width, given, HEADS),
        "num_layers": count_layers(renamed, LANGUAGE + "layers.{}.self_attn.q_proj.weight"),
        "ffn_width": shape(renamed, f"{LANGUAGE}layers.0.mlp.up_proj.weight", 2)[0],
    }
    return checked(JanusConfig.from_dict, settle_config(found, given))


def _publication(config: Config) -> Publication:
    height, width_in_tokens = config["grid"]
    title = TITLES.get(config["width"], "Janus")
    return Publication(
        title=title,
        licence="code MIT, weights DeepSeek Model License",
        source="https://huggingface.co/deepseek-ai" + ("" if title == "Janus" else f"/{title}"),
        defaults={
            "order": "raster",
            "steps": height * width_in_tokens,
            "group_sizes": "constant",
            "guidance": 5.0,
            "guidance_schedule": "constant",
            **UNTRUNCATED,
        },
        example_prompts=("a lighthouse on a cliff at sunset", "a glass of red wine on a reflective surface"),
    )


def _conditioner(config: Config, text: Path | None) -> Conditioner:
    if text is None or not text.is_file():
        raise WeightsError("a Janus reads prompts: --text names its tokenizer.json")
    try:
        conditioner = ChatConditioner(read_tokenizer(text.read_text(encoding="utf-8-sig")), CONVERSATION)
    except (OSError, ValueError, ConfigError) as error:
        raise WeightsError(f"{text.name} is no text tokenizer of Janus: {error}") from error
    if conditioner.vocab_size > config["condition_vocab"]:
        raise WeightsError(
            f"{text.name} has {conditioner.vocab_size} tokens and the checkpoint {config['condition_vocab']}: it is"
            " another model's text tokenizer"
        )
    return conditioner


def _recognises_tokenizer(shapes: Shapes) -> bool:
    return any(key.startswith(TOKENIZER_KEYS) for key in shapes)


def _infer_tokenizer(shapes: Shapes, given: Config) -> dict[str, Any]:
    return infer_vq({name: shapes[key] for name, key in tokenizer_names(shapes).items()}, given)


IMPORTER = Importer(
    _recognises,
    _infer,
    reader(janus_state, JanusConfig.from_dict),
    _publication,
    _conditioner,
    ignored=(*UNUSED, *TOKENIZER_KEYS),
)
TOKENIZER_IMPORTER = Importer(
    _recognises_tokenizer,
    _infer_tokenizer,
    reader(tokenizer_state),
    ignored=(*UNUSED, *BACKBONE_KEYS, *(start + name for start in TOKENIZER_KEYS for name in STATISTICS)),
)
