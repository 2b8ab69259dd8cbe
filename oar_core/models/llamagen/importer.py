"""Import of published LlamaGen checkpoints: of classes, and of captions."""

from pathlib import Path
from typing import Any

from oar_core.models.base import Conditioner
from oar_core.models.features import FeatureConditioner
from oar_core.models.gpt_sizes import CLASSES, SIZES, TOKENS, gpt_sizes, num_classes
from oar_core.models.importer import (
    PUBLISHED_GRID,
    Config,
    Importer,
    Publication,
    Shapes,
    checked,
    reader,
    settle_config,
    shape,
)
from oar_core.models.llamagen.checkpoint import IGNORED, llamagen_state
from oar_core.models.llamagen.config import LlamaGenConfig
from oar_core.models.text_features import TextFeatureConditioner

NO_CAPTION = "cls_embedding.uncond_embedding"
MADE_OF_IT = ("pos_instruct_embeddings", "spe_tok_embeddings.special_embeddings.weight")  # of other networks
LARGE_GRID = (24, 24)  # of pictures of 384 x 384 pixels
LARGE_ALONE = (1280, 1536, 3200)  # widths of which no network of classes has another grid
PIXELS = 16  # per token along an axis
GUIDANCE = {768: 2.0, 1024: 2.0}  # by width, with which FID was measured
OTHER_GUIDANCE, CAPTION_GUIDANCE = 1.75, 7.5
CAPTION_TOP_K = 1000


def _recognises(shapes: Shapes) -> bool:
    return (
        TOKENS in shapes
        and (CLASSES in shapes or NO_CAPTION in shapes)
        and not any(key in shapes for key in MADE_OF_IT)
    )


def _infer(shapes: Shapes, given: Config) -> dict[str, Any]:
    found = gpt_sizes(shapes, given)
    grid = PUBLISHED_GRID
    if NO_CAPTION in shapes:
        found["max_caption"], found["caption_width"] = shape(shapes, NO_CAPTION, 2)
    else:
        found["num_classes"] = num_classes(shapes)
        grid = LARGE_GRID if found["width"] in LARGE_ALONE else grid
    return checked(LlamaGenConfig.from_dict, settle_config(found, given, {"grid": grid}))


def _publication(config: Config) -> Publication:
    height, width_in_tokens = config["grid"]
    width, reads_captions = config["width"], config["caption_width"] > 0
    names = ["LlamaGen", "T2I" if reads_captions else "", SIZES.get(width, ""), str(PIXELS * height)]
    return Publication(
        title="-".join(name for name in names if name),
        licence="MIT",
        source="https://huggingface.co/" + ("peizesun/llamagen_t2i" if reads_captions else "FoundationVision/LlamaGen"),
        defaults={
            "order": "raster",
            "steps": height * width_in_tokens,
            "group_sizes": "constant",
            "guidance": CAPTION_GUIDANCE if reads_captions else GUIDANCE.get(width, OTHER_GUIDANCE),
            "guidance_schedule": "constant",
            "temperature": 1.0,
            "top_k": CAPTION_TOP_K if reads_captions else 0,
            "top_p": 1.0,
        },
    )


def _conditioner(config: Config, text: Path | None) -> Conditioner | None:
    """Reads captions by a T5 encoder's folder where there is one, and features alone otherwise."""
    if not config["caption_width"]:
        return None
    if text is None:
        return FeatureConditioner(config["max_caption"])
    return TextFeatureConditioner.published(text, config["max_caption"], config["caption_width"])


IMPORTER = Importer(
    _recognises, _infer, reader(llamagen_state, LlamaGenConfig.from_dict), _publication, _conditioner, ignored=IGNORED
)
