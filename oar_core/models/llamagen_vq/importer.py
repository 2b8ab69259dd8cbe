"""Import of published LlamaGen tokenizers: VQ-16 and VQ-8."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from oar_core.errors import WeightsError
from oar_core.models.importer import Config, Importer, Shapes, checked, count_layers, has_all, settle, shape
from oar_core.models.llamagen_vq.checkpoint import STATISTICS, native_state
from oar_core.models.llamagen_vq.config import VqConfig


def _recognises(shapes: Shapes) -> bool:
    return has_all(
        shapes, ["quantize.embedding.weight", "post_quant_conv.weight", "decoder.conv_blocks.0.res.0.conv1.weight"]
    )


def _infer(shapes: Shapes, given: Config) -> dict[str, Any]:
    """The grid is the backbone's: the network is convolutional, and knows none of its own."""
    width = shape(shapes, "encoder.conv_in.weight", 4)[0]
    levels = count_layers(shapes, "encoder.conv_blocks.{}.res.0.conv1.weight")
    outputs = [shape(shapes, f"encoder.conv_blocks.{level}.res.0.conv1.weight", 4)[0] for level in range(levels)]
    if any(output % width for output in outputs):
        raise WeightsError(f"its levels are {outputs} channels wide, which are no multiples of {width}")
    vocab_size, code_width = shape(shapes, "quantize.embedding.weight", 2)
    found = {
        "width": width,
        "multipliers": tuple(output // width for output in outputs),
        "encoder_blocks": count_layers(shapes, "encoder.conv_blocks.0.res.{}.conv1.weight"),
        "vocab_size": vocab_size,
        "code_width": code_width,
        "hidden_width": shape(shapes, "encoder.conv_out.weight", 4)[0],
    }
    return checked(VqConfig.from_dict, settle(found, given))


def _native_state(state: Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:  # noqa: ARG001
    return native_state(state)


IMPORTER = Importer(_recognises, _infer, _native_state, ignored=STATISTICS)
