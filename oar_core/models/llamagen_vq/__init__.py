"""The image tokenizer of LlamaGen (arXiv 2406.06525), which ARPG, LPD and RandAR share: VQ-16 and VQ-8."""

from oar_core.models.family import ModelFamily
from oar_core.models.llamagen_vq.importer import IMPORTER
from oar_core.models.vq import VqTokenizer
from oar_core.models.vq_config import VqConfig

FAMILY = ModelFamily(tokenizer=lambda config: VqTokenizer(VqConfig.from_dict(config)), tokenizer_importer=IMPORTER)
