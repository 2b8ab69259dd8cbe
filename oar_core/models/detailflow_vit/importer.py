"""Import of published DetailFlow tokenizers."""

from collections.abc import Mapping
from math import isqrt
from typing import Any

from oar_core.errors import WeightsError
from oar_core.models.detailflow_vit.checkpoint import IGNORED, VISION, detail_vit_state
from oar_core.models.detailflow_vit.config import DetailVitConfig
from oar_core.models.importer import (
    Config,
    Importer,
    Shapes,
    checked,
    count_layers,
    reader,
    settle_config,
    shape,
)
from oar_core.models.prefix_file import num_tokens, recognises_tokenizer

HEADS = {1152: 16, 768: 12}  # of the published widths
COLOURS = 3


def _infer(shapes: Shapes, given: Config) -> dict[str, Any]:
    vocab_size, code_width = shape(shapes, "quantize.embedding.weight", 2)
    found = {
        "num_tokens": num_tokens(shapes),
        "vocab_size": vocab_size,
        "code_width": code_width,
        "patch_size": _patch_size(shapes),
        **_stack(shapes, "encoder", given),
        **_stack(shapes, "decoder", given),
    }
    grid = tuple(given.get("grid", (1, found["num_tokens"])))
    if grid != (1, found["num_tokens"]):
        raise WeightsError(f"it has a sequence of {found['num_tokens']} tokens, and no grid of {grid[0]} x {grid[1]}")
    asked = {name: value for name, value in given.items() if name != "grid"}
    return checked(DetailVitConfig.from_dict, settle_config(found, asked))


def _patch_size(shapes: Shapes) -> int:
    """Raises WeightsError where encoder and decoder have other patches: such a tokenizer is not known here."""
    read = shape(shapes, f"encoder.{VISION}embeddings.patch_embedding.weight", 2)[1]
    written = shape(shapes, "decoder.to_pixel.model.weight", 2)[0]
    if read != written:
        raise WeightsError(f"its encoder reads patches of {read} numbers and its decoder writes patches of {written}")
    return _root(read // COLOURS, "pixels of a patch")


def _stack(shapes: Shapes, part: str, given: Config) -> Mapping[str, int]:
    """Raises WeightsError."""
    theirs = f"{part}.{VISION}"
    positions, width = shape(shapes, f"{theirs}embeddings.position_embedding.weight", 2)
    if f"{part}_heads" not in given and width not in HEADS:
        raise WeightsError(
            f"the width of its {part} is {width}, which is no published size: the config has to say {part}_heads,"
            " which no tensor tells"
        )
    return {
        f"{part}_width": width,
        f"{part}_heads": int(given.get(f"{part}_heads", HEADS.get(width))),
        f"{part}_layers": count_layers(shapes, theirs + "encoder.layers.{}.layer_norm1.weight"),
        f"{part}_hidden": shape(shapes, f"{theirs}encoder.layers.0.mlp.fc1.weight", 2)[0],
        f"{part}_side": _root(positions, f"places of its {part}"),
    }


def _root(count: int, what: str) -> int:
    """Raises WeightsError."""
    side = isqrt(count)
    if side * side != count:
        raise WeightsError(f"{count} {what} are no square")
    return side


IMPORTER = Importer(recognises_tokenizer, _infer, reader(detail_vit_state, DetailVitConfig.from_dict), ignored=IGNORED)
