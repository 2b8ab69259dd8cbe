"""LPD, locality-aware parallel decoding (arXiv 2507.01957): one trunk, whose queries of a step see each other."""

from oar_core.models.family import ModelFamily
from oar_core.models.lpd.backbone import LpdBackbone
from oar_core.models.lpd.config import LpdConfig
from oar_core.models.lpd.importer import IMPORTER

FAMILY = ModelFamily(backbone=lambda config: LpdBackbone(LpdConfig.from_dict(config)), importer=IMPORTER)
