"""Janus and Janus-Pro (arXiv 2410.13848, 2501.17811): a language model that also writes the codes of a picture."""

from oar_core.models.family import ModelFamily
from oar_core.models.janus.backbone import JanusBackbone
from oar_core.models.janus.config import JanusConfig
from oar_core.models.janus.importer import IMPORTER, TOKENIZER_IMPORTER
from oar_core.models.vq import VqTokenizer
from oar_core.models.vq_config import VqConfig

FAMILY = ModelFamily(
    backbone=lambda config: JanusBackbone(JanusConfig.from_dict(config)),
    tokenizer=lambda config: VqTokenizer(VqConfig.from_dict(config)),
    importer=IMPORTER,
    tokenizer_importer=TOKENIZER_IMPORTER,
)
