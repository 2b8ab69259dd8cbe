"""The tokenizer: encoder, codebook and decoder."""

from jaxtyping import Float, Int
from torch import Tensor

from oar_core.detail_config import DetailTokenizerConfig
from oar_core.models.coarse_to_fine import CoarseToFineTokenizer, PatchMemory
from oar_core.models.detailflow.decoder import DetailDecoder
from oar_core.models.detailflow.encoder import DetailEncoder
from oar_core.models.oar.quantizer import Quantizer
from oar_core.models.prefix_tokenizer import PrefixTokenizer


class DetailTokenizer(PrefixTokenizer, CoarseToFineTokenizer):
    """The one that is trained here."""

    def __init__(self, config: DetailTokenizerConfig) -> None:
        super().__init__(config)
        self.config = config
        self.encoder = DetailEncoder(config)
        self.quantizer = Quantizer(config.vocab_size, config.code_width)
        self.decoder = DetailDecoder(config)

    def encode(self, images: Float[Tensor, "B 3 Y X"]) -> Int[Tensor, "B L"]:
        return self.quantizer(self.describe(self.read(images))).token_ids

    def read(self, images: Float[Tensor, "B 3 Y X"]) -> PatchMemory:
        return self.encoder.read(images)

    def describe(self, memory: PatchMemory) -> Float[Tensor, "B L C"]:
        return self.encoder.describe(memory)

    def describe_again(self, memory: PatchMemory, prefix: Float[Tensor, "B K C"]) -> Float[Tensor, "B rest C"]:
        return self.encoder.describe_again(memory, prefix)

    def lookup(self, token_ids: Int[Tensor, "B K"]) -> Float[Tensor, "B K C"]:
        return self.quantizer.lookup(token_ids).to(next(self.decoder.parameters()).dtype)

    def paint(self, codes: Float[Tensor, "B K C"]) -> Float[Tensor, "B 3 y x"]:
        height, width = self.canvas_size(codes.shape[1])
        return self.decoder(codes, (height // self.config.patch_size, width // self.config.patch_size))
