"""Published LlamaGen checkpoints: their keys as this library's."""

from collections.abc import Mapping

from torch import Tensor

from oar_core.models.checkpoint import read_fitting
from oar_core.models.gpt import native_tensors, published_shapes
from oar_core.models.llamagen.config import LlamaGenConfig

CLASSES = {"cls_embedding.embedding_table.weight": "embed.weight"}
CAPTIONS = {
    "cls_embedding.uncond_embedding": "embed.nothing",
    "cls_embedding.cap_proj.fc1.weight": "embed.up.weight",
    "cls_embedding.cap_proj.fc2.weight": "embed.out.weight",
}
IGNORED = ("freqs_cis",)  # angles, which follow from the config


def llamagen_state(state: Mapping[str, Tensor], config: LlamaGenConfig) -> dict[str, Tensor]:
    """The tensors of a `LlamaGenBackbone`. Raises WeightsError for a checkpoint of other keys or sizes."""
    width = config.width
    sizes = (
        [(config.max_caption, config.caption_width), (width, config.caption_width), (width, width)]
        if config.reads_captions
        else [(config.num_classes + 1, width)]
    )
    names = CAPTIONS if config.reads_captions else CLASSES
    project = "LlamaGen text-to-image" if config.reads_captions else "LlamaGen class-to-image"
    found = read_fitting(state, {**published_shapes(config), **dict(zip(names, sizes))}, project, IGNORED)
    return {
        **{f"gpt.{name}": tensor.clone() for name, tensor in native_tensors(found, config).items()},
        **{ours: found[theirs].clone() for theirs, ours in names.items()},
    }
