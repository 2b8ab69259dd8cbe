"""The native family: a decoupled any-order transformer over the tokens of a convolutional VQGAN."""

from oar_core.config import BackboneConfig, TokenizerConfig
from oar_core.models.family import ModelFamily
from oar_core.models.oar.backbone import OarBackbone
from oar_core.models.oar.vqgan import VQGAN

FAMILY = ModelFamily(
    backbone=lambda config: OarBackbone(BackboneConfig.from_dict(config)),
    tokenizer=lambda config: VQGAN(TokenizerConfig.from_dict(config)),
)
