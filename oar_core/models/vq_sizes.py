"""The sizes of a `VqTokenizer`, as the tensors of a published checkpoint say."""

from typing import Any

from oar_core.errors import WeightsError
from oar_core.models.importer import Config, Shapes, checked, count_layers, settle_config, shape
from oar_core.models.vq_config import VqConfig


def infer_vq(shapes: Shapes, given: Config) -> dict[str, Any]:
    """The grid is the backbone's: the network is convolutional, and knows none of its own. Raises WeightsError."""
    found = {
        **levels_of(shapes, "encoder.conv_blocks.{}.res.0.conv1.weight"),
        "encoder_blocks": count_layers(shapes, "encoder.conv_blocks.0.res.{}.conv1.weight"),
        "hidden_width": shape(shapes, "encoder.conv_out.weight", 4)[0],
    }
    return checked(VqConfig.from_dict, settle_config(found, given))


def levels_of(shapes: Shapes, pattern: str) -> dict[str, Any]:
    """Widths of an encoder's levels, and its codes. `pattern` is the key of each level's first convolution. Raises
    WeightsError."""
    width = shape(shapes, "encoder.conv_in.weight", 4)[0]
    levels = count_layers(shapes, pattern)
    outputs = [shape(shapes, pattern.format(level), 4)[0] for level in range(levels)]
    if any(output % width for output in outputs):
        raise WeightsError(f"its levels are {outputs} channels wide, which are no multiples of {width}")
    vocab_size, code_width = shape(shapes, "quantize.embedding.weight", 2)
    return {
        "width": width,
        "multipliers": tuple(output // width for output in outputs),
        "vocab_size": vocab_size,
        "code_width": code_width,
    }
