"""Model folders of the golden networks, in the files that a real one ships in."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from oar_core.config import FrozenConfig
from oar_core.models.arpg import checkpoint as arpg
from oar_core.models.arpg.config import ArpgConfig
from oar_core.models.base import Conditioner
from oar_core.models.classes import ClassConditioner
from oar_core.models.gpt import GptConfig
from oar_core.models.llamagen import checkpoint as llamagen
from oar_core.models.llamagen.config import LlamaGenConfig
from oar_core.models.llamagen_vq import checkpoint as llamagen_vq
from oar_core.models.load import FORMAT
from oar_core.models.lpd import checkpoint as lpd
from oar_core.models.lpd.config import LpdConfig
from oar_core.models.model import BACKBONE, CONFIG, TOKENIZER
from oar_core.models.no_condition import NoCondition
from oar_core.models.randar import checkpoint as randar
from oar_core.models.vq_config import VqConfig
from tests.models.golden import Golden

GRID, NUM_TOKENS, NUM_CODES, NUM_CLASSES = (4, 4), 16, 64, 10
CLASS_NAMES = (
    *("tench", "goldfish", "great white shark", "tiger shark", "hammerhead"),
    *("electric ray", "stingray", "cock", "hen", "ostrich"),
)
SIZES = {"grid": GRID, "vocab_size": NUM_CODES, "num_classes": NUM_CLASSES, "width": 64, "num_heads": 4}
BACKBONES = {
    "arpg": (ArpgConfig(**SIZES, num_layers=2, ffn_width=256), arpg.arpg_state),
    "lpd": (LpdConfig(**SIZES, num_layers=2), lpd.lpd_state),
    "randar": (GptConfig(**SIZES, num_layers=2, ffn_width=256), randar.randar_state),
    "llamagen": (LlamaGenConfig(**SIZES, num_layers=2, ffn_width=256), llamagen.llamagen_state),
}
GOLDEN = {"llamagen": "llamagen_c2i"}  # where a golden folder has another name than its family
RASTER_ONLY = ("llamagen",)
CAPTIONS = LlamaGenConfig(**SIZES, num_layers=2, ffn_width=256, caption_width=32)
ANY_ORDER = {"order": "random", "steps": 6, "group_sizes": "cosine", "guidance": 3.0, "guidance_schedule": "linear"}
RASTER = {"order": "raster", "steps": NUM_TOKENS, "group_sizes": "constant", "guidance": 3.0}
TOKENIZER_CONFIG = VqConfig(
    grid=GRID, width=32, multipliers=(1, 2), encoder_blocks=1, vocab_size=NUM_CODES, code_width=8, hidden_width=32
)


def write_golden_model(family: str, folder: Path) -> None:
    """A model of that family with the golden tokenizer and ten classes."""
    config, native_state = BACKBONES[family]
    state = native_state(Golden.load(GOLDEN.get(family, family)).state, config)
    _write(folder, family, config, state, conditioner=ClassConditioner.kind, example_prompts=["goldfish", "hen"])
    ClassConditioner.of(CLASS_NAMES, NUM_CLASSES).save(folder)


def write_caption_model(folder: Path, conditioner: Conditioner, kind: str, example_prompts: Sequence[str] = ()) -> None:
    """The golden network that reads features of captions, with this conditioner."""
    state = llamagen.llamagen_state(Golden.load("llamagen_t2i").state, CAPTIONS)
    _write(folder, "llamagen", CAPTIONS, state, conditioner=kind, example_prompts=list(example_prompts))
    conditioner.save(folder)


def write_unconditional_model(folder: Path) -> None:
    """The golden network of ARPG, without its classes: a model that draws without a condition."""
    config, native_state = BACKBONES["arpg"]
    state = native_state(Golden.load("arpg").state, config)
    defaults = {key: value for key, value in ANY_ORDER.items() if not key.startswith("guidance")}
    _write(folder, "arpg", config, state, conditioner=NoCondition.kind, example_prompts=[], defaults=defaults)
    NoCondition((NUM_CLASSES,)).save(folder)


def _write(folder: Path, family: str, config: FrozenConfig, state: Mapping[str, Tensor], **others: object) -> None:
    folder.mkdir(parents=True)
    save_file(dict(state), folder / BACKBONE)
    save_file(llamagen_vq.llamagen_vq_state(Golden.load("vq_llamagen").state), folder / TOKENIZER)
    drawing = RASTER if family in RASTER_ONLY else ANY_ORDER
    stored = {
        "format": FORMAT,
        "family": family,
        "name": family,
        "backbone": config.to_dict(),
        "tokenizer": {"family": "llamagen_vq", **TOKENIZER_CONFIG.to_dict()},
        "defaults": {**drawing, "temperature": 1.0, "top_k": 0, "top_p": 1.0},
        **others,
    }
    (folder / CONFIG).write_text(json.dumps(stored))
