"""RandAR (arXiv 2412.01827): a decoder in any order, told by a token before each which position comes next."""

from oar_core.models.family import ModelFamily
from oar_core.models.gpt import GptConfig
from oar_core.models.randar.backbone import RandarBackbone
from oar_core.models.randar.importer import IMPORTER

FAMILY = ModelFamily(backbone=lambda config: RandarBackbone(GptConfig.from_dict(config)), importer=IMPORTER)
