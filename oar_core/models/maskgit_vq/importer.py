"""Import of published MaskGIT tokenizers."""

from typing import Any

from oar_core.models.importer import Config, Importer, Shapes, checked, count_layers, has_all, reader, settle_config
from oar_core.models.maskgit_vq.checkpoint import maskgit_vq_state
from oar_core.models.maskgit_vq.config import MaskGitVqConfig
from oar_core.models.vq_sizes import levels_of


def _recognises(shapes: Shapes) -> bool:
    return has_all(shapes, ["quantize.embedding.weight", "decoder.up.0.block.0.conv1.weight"])


def _infer(shapes: Shapes, given: Config) -> dict[str, Any]:
    """The grid is the backbone's."""
    found = {
        **levels_of(shapes, "encoder.down.{}.block.0.conv1.weight"),
        "num_blocks": count_layers(shapes, "encoder.down.0.block.{}.conv1.weight"),
    }
    return checked(MaskGitVqConfig.from_dict, settle_config(found, given))


IMPORTER = Importer(_recognises, _infer, reader(maskgit_vq_state))
