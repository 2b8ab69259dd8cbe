"""LlamaGen (arXiv 2406.06525): a language model's network over the tokens of a picture, in raster order."""

from oar_core.models.family import ModelFamily
from oar_core.models.llamagen.backbone import LlamaGenBackbone
from oar_core.models.llamagen.config import LlamaGenConfig
from oar_core.models.llamagen.importer import IMPORTER

FAMILY = ModelFamily(backbone=lambda config: LlamaGenBackbone(LlamaGenConfig.from_dict(config)), importer=IMPORTER)
