"""Import of published RandAR checkpoints."""

from typing import Any

from oar_core.models.gpt import GptConfig
from oar_core.models.gpt_sizes import SIZES, TOKENS, gpt_sizes, num_classes
from oar_core.models.importer import (
    PUBLISHED_GRID,
    UNTRUNCATED,
    Config,
    Importer,
    Publication,
    Shapes,
    checked,
    has_all,
    reader,
    settle_config,
)
from oar_core.models.randar.checkpoint import CLASSES, INSTRUCTION, randar_state

GUIDANCE = {(1024, 16_384): 3.4}  # by width and number of codes, with which FID was measured
OTHER_GUIDANCE = 4.0  # with all others


def _recognises(shapes: Shapes) -> bool:
    return has_all(shapes, [TOKENS, CLASSES, INSTRUCTION])


def _infer(shapes: Shapes, given: Config) -> dict[str, Any]:
    found = {**gpt_sizes(shapes, given), "num_classes": num_classes(shapes)}
    return checked(GptConfig.from_dict, settle_config(found, given, {"grid": PUBLISHED_GRID}))


def _publication(config: Config) -> Publication:
    width = config["width"]
    return Publication(
        title=f"RandAR-{SIZES[width]}" if width in SIZES else "RandAR",
        licence="MIT",
        source="https://huggingface.co/ziqipang/RandAR",
        defaults={
            "order": "random",
            "steps": min(88, config["grid"][0] * config["grid"][1]),
            "group_sizes": "published",
            "guidance": GUIDANCE.get((width, config["vocab_size"]), OTHER_GUIDANCE),
            "guidance_schedule": "linear",
            **UNTRUNCATED,
        },
    )


IMPORTER = Importer(_recognises, _infer, reader(randar_state, GptConfig.from_dict), _publication)
