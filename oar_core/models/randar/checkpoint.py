"""Published RandAR checkpoints: their keys as this library's."""

from collections.abc import Mapping

from torch import Tensor

from oar_core.models.checkpoint import read_fitting
from oar_core.models.gpt import GptConfig, native_tensors, published_shapes
from oar_core.nn.rope import halved

CLASSES, INSTRUCTION = "cls_embedding.embedding_table.weight", "pos_instruct_embeddings"


def randar_state(state: Mapping[str, Tensor], config: GptConfig) -> dict[str, Tensor]:
    """The tensors of a `RandarBackbone`. Raises WeightsError for a checkpoint of other keys or sizes."""
    shapes = {
        **published_shapes(config),
        CLASSES: (config.num_classes + 1, config.width),
        INSTRUCTION: (1, config.width),
    }
    found = read_fitting(state, shapes, "RandAR")
    return {
        **{f"gpt.{name}": tensor.clone() for name, tensor in native_tensors(found, config).items()},
        "embed_class.weight": found[CLASSES].clone(),
        "instruction": halved(found[INSTRUCTION].T, config.num_heads).flatten().clone(),
    }
