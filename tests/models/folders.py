"""Model folders of the golden networks, in the files that a real one ships in."""

import json
from pathlib import Path

from safetensors.torch import save_file

from oar_core.models.arpg import checkpoint as arpg
from oar_core.models.arpg.config import ArpgConfig
from oar_core.models.classes import ClassConditioner
from oar_core.models.llamagen_vq import checkpoint as llamagen_vq
from oar_core.models.llamagen_vq.config import VqConfig
from oar_core.models.load import FORMAT
from oar_core.models.lpd import checkpoint as lpd
from oar_core.models.lpd.config import LpdConfig
from oar_core.models.model import BACKBONE, CONFIG, TOKENIZER
from tests.models.golden import Golden

GRID, NUM_TOKENS, NUM_CODES, NUM_CLASSES = (4, 4), 16, 64, 10
CLASS_NAMES = (
    *("tench", "goldfish", "great white shark", "tiger shark", "hammerhead"),
    *("electric ray", "stingray", "cock", "hen", "ostrich"),
)
SIZES = {"grid": GRID, "vocab_size": NUM_CODES, "num_classes": NUM_CLASSES, "width": 64, "num_heads": 4}
BACKBONES = {
    "arpg": (ArpgConfig(**SIZES, num_layers=2, ffn_width=256), arpg.native_state),
    "lpd": (LpdConfig(**SIZES, num_layers=2), lpd.native_state),
}
TOKENIZER_CONFIG = VqConfig(
    grid=GRID, width=32, multipliers=(1, 2), encoder_blocks=1, vocab_size=NUM_CODES, code_width=8, hidden_width=32
)


def write_golden_model(family: str, folder: Path) -> None:
    """A model of that family with the golden tokenizer and ten classes."""
    folder.mkdir(parents=True)
    config, native_state = BACKBONES[family]
    save_file(native_state(Golden.load(family).state, config), folder / BACKBONE)
    save_file(llamagen_vq.native_state(Golden.load("vq_llamagen").state), folder / TOKENIZER)
    ClassConditioner.of(CLASS_NAMES, NUM_CLASSES).save(folder)
    stored = {
        "format": FORMAT,
        "family": family,
        "name": family,
        "backbone": config.to_dict(),
        "tokenizer": {"family": "llamagen_vq", **TOKENIZER_CONFIG.to_dict()},
        "conditioner": ClassConditioner.kind,
        "defaults": {
            "order": "random", "steps": 6, "group_sizes": "cosine", "guidance": 3.0, "guidance_schedule": "linear",
            "temperature": 1.0, "top_k": 0, "top_p": 1.0,
        },
        "example_prompts": ["goldfish", "hen"],
    }  # fmt: skip
    (folder / CONFIG).write_text(json.dumps(stored))
