"""A model folder of a video family with random weights."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from oar_core.models.classes import ClassConditioner
from oar_core.models.load import FAMILIES, FORMAT, family
from oar_core.models.model import BACKBONE, CONFIG

VIDEO_FAMILIES = tuple(key for key in FAMILIES if family(key).frames is not None)
NAME = "video"
NUM_FRAMES, NUM_SIGMAS, NUM_CLASSES, SIZE = 8, 2, 10, (8, 8)
CLASS_NAMES = tuple(f"thing {number}" for number in range(NUM_CLASSES))


def write_video_model(folder: Path, *, seed: int = 5, **sizes: object) -> None:
    """Weights so large that noise, class and earlier frames all sway what comes."""
    folder.mkdir(parents=True)
    (key,) = VIDEO_FAMILIES
    backbone = family(key).build_frames(key, sizes)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.25, generator=generator)
    save_file({name: tensor.contiguous() for name, tensor in backbone.state_dict().items()}, folder / BACKBONE)
    ClassConditioner.of(CLASS_NAMES, NUM_CLASSES).save(folder)
    stored = {
        "format": FORMAT,
        "family": key,
        "name": NAME,
        "backbone": sizes,
        "conditioner": ClassConditioner.kind,
        "defaults": {"guidance": 2.0},
        "example_prompts": ["thing 1", "thing 2"],
        "pixel_art": True,
    }
    (folder / CONFIG).write_text(json.dumps(stored))
