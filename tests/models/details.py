"""A model folder of the family that writes from coarse to fine, with random weights."""

import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from oar_core.models.classes import ClassConditioner
from oar_core.models.load import COARSE_TO_FINE, FORMAT
from oar_core.models.model import BACKBONE, CONFIG, TOKENIZER
from oar_core.text import TextTokenizer
from tests.models.detailflow import tiny

NAME = "detail"
NUM_CLASSES, SIZE = 10, (16, 16)
CLASS_NAMES = tuple(f"thing {number}" for number in range(NUM_CLASSES))
PROMPTS = ["a red circle", "a blue square, seen from the front"]
TOKENS = replace(tiny.TOKENIZER, num_tokens=16, group_size=4)
GROUPS = TOKENS.groups.sizes
NUM_STEPS, NUM_TOKENS = len(GROUPS), 16
DRAWING = {"order": "raster", "steps": NUM_STEPS, "group_sizes": "constant", "guidance": 2.0}


def write_detail_model(folder: Path, kind: str = "text") -> None:
    """`kind` of conditions: text or class."""
    folder.mkdir(parents=True)
    if kind == "class":
        ClassConditioner.of(CLASS_NAMES, NUM_CLASSES).save(folder)
        config = replace(tiny.BACKBONE, condition_vocab=NUM_CLASSES + 1, max_condition=1)
    else:
        text = TextTokenizer.train(PROMPTS, vocab_size=280)
        text.save(folder)
        config = replace(tiny.BACKBONE, condition_vocab=text.vocab_size, max_condition=24)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        parts = {BACKBONE: tiny.backbone(config), TOKENIZER: tiny.tokenizer(TOKENS)}
    for name, part in parts.items():
        save_file({key: value.contiguous() for key, value in part.state_dict().items()}, folder / name)
    stored = {
        "format": FORMAT,
        "family": COARSE_TO_FINE,
        "name": NAME,
        "backbone": config.to_dict(),
        "tokenizer": {"family": COARSE_TO_FINE, **TOKENS.to_dict()},
        "conditioner": kind,
        "pixel_art": True,  # so that what is shown can be compared pixel by pixel
        "defaults": {**DRAWING, "temperature": 1.0, "top_k": 0, "top_p": 1.0},
        "example_prompts": PROMPTS if kind == "text" else ["thing 1", "thing 2"],
    }
    (folder / CONFIG).write_text(json.dumps(stored))
