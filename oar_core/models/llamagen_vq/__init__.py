"""The image tokenizer of LlamaGen (arXiv 2406.06525), which ARPG, LPD and RandAR share: VQ-16 and VQ-8."""

from oar_core.models.family import Config, ModelFamily
from oar_core.models.llamagen_vq.config import VqConfig
from oar_core.models.llamagen_vq.importer import IMPORTER
from oar_core.models.vq import VqTokenizer


def _tokenizer(config: Config) -> VqTokenizer:
    return VqTokenizer(VqConfig.from_dict(config))


FAMILY = ModelFamily(tokenizer=_tokenizer, tokenizer_importer=IMPORTER)
