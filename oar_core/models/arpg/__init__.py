"""ARPG (arXiv 2503.10568): the native network with other norms and angles, whose committed groups see themselves."""

from oar_core.models.arpg.config import ArpgConfig
from oar_core.models.family import Config, Family
from oar_core.models.oar.backbone import OarBackbone


def _backbone(config: Config) -> OarBackbone:
    return OarBackbone(ArpgConfig.from_dict(config).native)


FAMILY = Family(backbone=_backbone)
