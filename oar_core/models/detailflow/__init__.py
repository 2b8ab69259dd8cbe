"""DetailFlow (arXiv 2505.21473): a sequence of tokens from coarse to fine, in groups that are drawn together."""

from oar_core.detail_config import DetailTokenizerConfig
from oar_core.models.detailflow.tokenizer import DetailTokenizer
from oar_core.models.family import Config, Family


def _tokenizer(config: Config) -> DetailTokenizer:
    return DetailTokenizer(DetailTokenizerConfig.from_dict(config))


FAMILY = Family(tokenizer=_tokenizer)
