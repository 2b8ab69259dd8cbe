"""Import of published LPD checkpoints."""

from typing import Any

from oar_core.errors import WeightsError
from oar_core.models.importer import (
    UNTRUNCATED,
    Config,
    Importer,
    Publication,
    Shapes,
    checked,
    count_layers,
    has_all,
    heads,
    reader,
    settle_config,
    shape,
    square_grid,
)
from oar_core.models.lpd.checkpoint import lpd_state
from oar_core.models.lpd.config import LpdConfig

HEADS = {1024: 16, 1280: 20, 1536: 24}  # of the published widths
NAMES = {1024: "l", 1280: "xl", 1536: "xxl"}
# Steps and guidance, by width and number of positions, with which FID was measured.
RECIPES = {(1024, 256): (20, 4.8), (1280, 256): (20, 4.9), (1536, 256): (20, 5.9), (1024, 1024): (48, 7.3),
           (1280, 1024): (48, 6.0)}  # fmt: skip
# Cells that the positions of a group keep apart: one more than their `repulsion_threshold`. Else `REPULSION`.
REPULSIONS = {(1536, 256): 4, (1024, 1024): 5, (1280, 1024): 5}
REPULSION = 3
PIXELS = 16  # per token along an axis


def _recognises(shapes: Shapes) -> bool:
    return has_all(shapes, ["class_emb.weight", "fake_latent", "z_proj_ln.weight", "pos_embed"])


def _infer(shapes: Shapes, given: Config) -> dict[str, Any]:
    vocab_size, width = shape(shapes, "head.weight", 2)
    _, places, _ = shape(shapes, "pos_embed", 3)
    hidden, _ = shape(shapes, "blocks.0.mlp.fc1.weight", 2)
    if hidden != 4 * width:
        raise WeightsError(f"its feed-forward width is {hidden}; four times the width, {4 * width}, was expected")
    found = {
        "grid": square_grid(places - 1, given),
        "vocab_size": vocab_size,
        "num_classes": shape(shapes, "class_emb.weight", 2)[0],
        "width": width,
        "num_heads": heads(width, given, HEADS),
        "num_layers": count_layers(shapes, "blocks.{}.attn.qkv.weight"),
    }
    return checked(LpdConfig.from_dict, settle_config(found, given))


def _publication(config: Config) -> Publication:
    height, width_in_tokens = config["grid"]
    num_tokens, name = height * width_in_tokens, NAMES.get(config["width"])
    steps, guidance = RECIPES.get((config["width"], num_tokens), (min(20, num_tokens), 4.8))
    side = PIXELS * height
    return Publication(
        title="LPD" if name is None else f"LPD-{name.upper()}-{side}",
        licence="MIT",
        source="https://huggingface.co/mit-han-lab" + ("" if name is None else f"/lpd_{name}_{side}"),
        defaults={
            "order": "spaced",
            "repulsion": REPULSIONS.get((config["width"], num_tokens), REPULSION),
            "steps": steps,
            "group_sizes": "published",
            "guidance": guidance,
            "guidance_schedule": "linear",
            **UNTRUNCATED,
        },
    )


IMPORTER = Importer(_recognises, _infer, reader(lpd_state, LpdConfig.from_dict), _publication)
