"""RandAR (arXiv 2412.01827): a decoder in any order, told by a token before each which position comes next."""

from oar_core.models.family import Config, ModelFamily
from oar_core.models.gpt import GptConfig
from oar_core.models.randar.backbone import RandarBackbone
from oar_core.models.randar.importer import IMPORTER


def _backbone(config: Config) -> RandarBackbone:
    return RandarBackbone(GptConfig.from_dict(config))


FAMILY = ModelFamily(backbone=_backbone, importer=IMPORTER)
