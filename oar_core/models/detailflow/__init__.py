"""DetailFlow (arXiv 2505.21473): a sequence of tokens from coarse to fine, in groups that are drawn together."""

from oar_core.detail_config import DetailBackboneConfig, DetailTokenizerConfig
from oar_core.models.detailflow.backbone import DetailBackbone
from oar_core.models.detailflow.importer import IMPORTER
from oar_core.models.detailflow.tokenizer import DetailTokenizer
from oar_core.models.family import Config, ModelFamily


def _backbone(config: Config) -> DetailBackbone:
    return DetailBackbone(DetailBackboneConfig.from_dict(config))


def _tokenizer(config: Config) -> DetailTokenizer:
    return DetailTokenizer(DetailTokenizerConfig.from_dict(config))


FAMILY = ModelFamily(backbone=_backbone, tokenizer=_tokenizer, importer=IMPORTER)
