"""Import of published ARPG checkpoints."""

from typing import Any

from oar_core.errors import WeightsError
from oar_core.models.arpg.checkpoint import arpg_state
from oar_core.models.arpg.config import ArpgConfig
from oar_core.models.importer import (
    PUBLISHED_GRID,
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
)

HEADS = {1024: 16, 1280: 20, 1536: 24}  # of the published widths
TITLES = {1024: "ARPG-L", 1280: "ARPG-XL", 1536: "ARPG-XXL"}
GUIDANCE = {1024: 5.0, 1280: 6.0, 1536: 7.5}  # with which FID was measured
SPECIAL_ROWS = 3  # of the table of embeddings: the mask token, the unconditional class, and one that is never used


def _recognises(shapes: Shapes) -> bool:
    return has_all(shapes, ["embeddings.weight", "layers.to_k.weight", "layers.to_v.weight"])


def _infer(shapes: Shapes, given: Config) -> dict[str, Any]:
    vocab_size, width = shape(shapes, "head.weight", 2)
    rows, _ = shape(shapes, "embeddings.weight", 2)
    num_classes = rows - vocab_size - SPECIAL_ROWS + 1
    if num_classes < 1:
        raise WeightsError(f"embeddings.weight has {rows} rows, too few for {vocab_size} codes and a class")
    num_layers = count_layers(shapes, "layers.self_dec.{}.attn.to_q.weight")
    if count_layers(shapes, "layers.cross_dec.{}.attn.to_q.weight") != num_layers:
        raise WeightsError("its two stacks have different numbers of layers")
    found = {
        "vocab_size": vocab_size,
        "num_classes": num_classes - 1,
        "width": width,
        "num_heads": heads(width, given, HEADS),
        "num_layers": num_layers,
        "ffn_width": shape(shapes, "layers.self_dec.0.ffn.w1.weight", 2)[0],
    }
    return checked(ArpgConfig.from_dict, settle_config(found, given, {"grid": PUBLISHED_GRID}))


def _publication(config: Config) -> Publication:
    width = config["width"]
    steps = min(64, config["grid"][0] * config["grid"][1])
    return Publication(
        title=TITLES.get(width, "ARPG"),
        licence="MIT",
        source="https://huggingface.co/hp-l33/ARPG",
        defaults={
            "order": "random",
            "steps": steps,
            "group_sizes": "published",
            "guidance": GUIDANCE.get(width, 5.0),
            "guidance_schedule": "linear",
            **UNTRUNCATED,
        },
    )


IMPORTER = Importer(_recognises, _infer, reader(arpg_state, ArpgConfig.from_dict), _publication)
