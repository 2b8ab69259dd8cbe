"""Import of published DetailFlow networks."""

from typing import Any

from oar_core.detail_config import HELD, DetailBackboneConfig
from oar_core.models.detailflow.checkpoint import IGNORED, PADS, detail_state
from oar_core.models.gpt_sizes import SIZES, TOKENS, gpt_sizes, num_classes
from oar_core.models.importer import (
    Config,
    Importer,
    Partner,
    Publication,
    Shapes,
    checked,
    has_all,
    reader,
    settle_config,
    shape,
)
from oar_core.models.prefix_file import num_tokens, recognises_tokenizer

NUM_TOKENS = 128  # of the smallest published one: where neither file nor config tells
GUIDANCE = {128: 1.45, 256: 1.5, 512: 1.32}  # by the number of tokens, with which FID was measured
USUAL_GUIDANCE = 1.5
GROUP = 8
NOTICE = (
    "no reference numbers of DetailFlow are at hand: names, shapes and rules follow its code, and whether its pictures"
    " come out the same was not compared"
)


def _recognises(shapes: Shapes) -> bool:
    return has_all(shapes, [TOKENS, PADS])


def _infer(shapes: Shapes, given: Config) -> dict[str, Any]:
    sizes = gpt_sizes(shapes, given)
    found = {
        **sizes,
        "group_size": shape(shapes, PADS, 2)[0] + 1,
        "condition_vocab": num_classes(shapes) + 1,
        "max_condition": 1,
        "norm": "rms",
        "angles": HELD,
        "has_causal_first": True,
    }
    return checked(DetailBackboneConfig.from_dict, settle_config(found, given, {"num_tokens": NUM_TOKENS}))


def _publication(config: Config) -> Publication:
    groups = DetailBackboneConfig.from_dict(config).groups
    size = SIZES.get(config["width"], "")
    return Publication(
        title=f"DetailFlow-{groups.num_tokens // GROUP}" + (f"-GPT-{size}" if size else ""),
        licence="Apache-2.0",
        source="https://huggingface.co/ByteFlow-AI",
        defaults={
            "order": "raster",
            "steps": len(groups.sizes),
            "group_sizes": "constant",
            "guidance": GUIDANCE.get(groups.num_tokens, USUAL_GUIDANCE),
            "guidance_schedule": "constant",
            "temperature": 1.0,
            "top_k": 0,
            "top_p": 1.0,
        },
        notice=NOTICE,
    )


def _of_tokenizer(shapes: Shapes) -> dict[str, Any]:
    """How long the sequence is, which the backbone's tensors do not tell."""
    return {"num_tokens": num_tokens(shapes)} if recognises_tokenizer(shapes) else {}


def _of_backbone(shapes: Shapes, config: Config) -> dict[str, Any]:
    """The groups, which the tokenizer's tensors do not tell."""
    return {"group_size": config["group_size"]} if recognises_tokenizer(shapes) else {}


IMPORTER = Importer(
    _recognises,
    _infer,
    reader(detail_state, DetailBackboneConfig.from_dict),
    _publication,
    ignored=IGNORED,
    drawn_with="ema",
    partner=Partner(_of_tokenizer, _of_backbone),
)
