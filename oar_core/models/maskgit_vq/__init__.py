"""The MaskGIT VQGAN as open-muse ported it (arXiv 2202.04200), which RandAR and RAR use: pictures in 16 x 16 codes."""

from oar_core.models.family import ModelFamily
from oar_core.models.maskgit_vq.config import MaskGitVqConfig
from oar_core.models.maskgit_vq.importer import IMPORTER
from oar_core.models.maskgit_vq.vq import MaskGitVqTokenizer

FAMILY = ModelFamily(
    tokenizer=lambda config: MaskGitVqTokenizer(MaskGitVqConfig.from_dict(config)), tokenizer_importer=IMPORTER
)
