"""Import of published LlamaGen tokenizers: VQ-16 and VQ-8."""

from collections.abc import Mapping

from torch import Tensor

from oar_core.models.importer import Config, Importer, Shapes, has_all
from oar_core.models.llamagen_vq.checkpoint import STATISTICS, native_state
from oar_core.models.vq_sizes import infer_vq


def _recognises(shapes: Shapes) -> bool:
    return has_all(
        shapes, ["quantize.embedding.weight", "post_quant_conv.weight", "decoder.conv_blocks.0.res.0.conv1.weight"]
    )


def _native_state(state: Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:  # noqa: ARG001
    return native_state(state)


IMPORTER = Importer(_recognises, infer_vq, _native_state, ignored=STATISTICS)
