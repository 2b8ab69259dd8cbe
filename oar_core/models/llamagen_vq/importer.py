"""Import of published LlamaGen tokenizers: VQ-16 and VQ-8."""

from oar_core.models.importer import Importer, Shapes, has_all, reader
from oar_core.models.llamagen_vq.checkpoint import STATISTICS, llamagen_vq_state
from oar_core.models.vq_sizes import infer_vq


def _recognises(shapes: Shapes) -> bool:
    return has_all(
        shapes, ["quantize.embedding.weight", "post_quant_conv.weight", "decoder.conv_blocks.0.res.0.conv1.weight"]
    )


IMPORTER = Importer(_recognises, infer_vq, reader(llamagen_vq_state), ignored=STATISTICS)
