"""The native family: a decoupled any-order transformer over the tokens of a convolutional VQGAN."""

from typing import cast

from oar_core.config import BackboneConfig, OrderPolicyConfig, TokenizerConfig
from oar_core.models.base import Backbone
from oar_core.models.family import Config, Family
from oar_core.models.oar.backbone import OarBackbone
from oar_core.models.oar.policy import OrderPolicy
from oar_core.models.oar.vqgan import VQGAN


def _attach_policy(config: Config, backbone: Backbone) -> OrderPolicy:
    network = cast(OarBackbone, backbone)
    network.policy = OrderPolicy(OrderPolicyConfig.from_dict(config), network.config)
    return network.policy


FAMILY = Family(
    backbone=lambda config: OarBackbone(BackboneConfig.from_dict(config)),
    tokenizer=lambda config: VQGAN(TokenizerConfig.from_dict(config)),
    policy=_attach_policy,
)
