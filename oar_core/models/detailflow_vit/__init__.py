"""The image tokenizer of the published DetailFlow models (arXiv 2505.21473)."""

from oar_core.models.detailflow_vit.config import DetailVitConfig
from oar_core.models.detailflow_vit.importer import IMPORTER
from oar_core.models.detailflow_vit.tokenizer import DetailVitTokenizer
from oar_core.models.family import Config, ModelFamily


def _tokenizer(config: Config) -> DetailVitTokenizer:
    return DetailVitTokenizer(DetailVitConfig.from_dict(config))


FAMILY = ModelFamily(tokenizer=_tokenizer, tokenizer_importer=IMPORTER)
