"""LPD, locality-aware parallel decoding (arXiv 2507.01957): one trunk, whose queries of a step see each other."""

from oar_core.models.family import Config, ModelFamily
from oar_core.models.lpd.backbone import LpdBackbone
from oar_core.models.lpd.config import LpdConfig
from oar_core.models.lpd.importer import IMPORTER


def _backbone(config: Config) -> LpdBackbone:
    return LpdBackbone(LpdConfig.from_dict(config))


FAMILY = ModelFamily(backbone=_backbone, importer=IMPORTER)
