"""ARPG (arXiv 2503.10568): the native network with other norms and angles, whose committed groups see themselves."""

from dataclasses import replace

from oar_core.models.arpg.config import ArpgConfig
from oar_core.models.arpg.groups import arpg_groups
from oar_core.models.arpg.importer import IMPORTER
from oar_core.models.base import BackboneSpec, GuidanceShare
from oar_core.models.family import ModelFamily
from oar_core.models.oar.backbone import OarBackbone


class ArpgBackbone(OarBackbone):
    @property
    def spec(self) -> BackboneSpec:
        return replace(super().spec, guidance_share=GuidanceShare.END, published_groups=arpg_groups)


FAMILY = ModelFamily(backbone=lambda config: ArpgBackbone(ArpgConfig.from_dict(config).native), importer=IMPORTER)
