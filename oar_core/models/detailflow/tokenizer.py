"""The tokenizer: encoder, codebook and decoder."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from oar_core.detail_config import DetailTokenizerConfig
from oar_core.models.coarse_to_fine import CoarseToFineTokenizer, PatchMemory
from oar_core.models.detailflow.decoder import DetailDecoder
from oar_core.models.detailflow.encoder import DetailEncoder
from oar_core.models.detailflow.resolution import in_whole_patches, resolution
from oar_core.models.oar.quantizer import Quantizer


class DetailTokenizer(CoarseToFineTokenizer):
    """A partial picture is decoded from its known tokens up to the first unknown one, at the resolution of that prefix,
    and enlarged to the size of the whole picture."""

    def __init__(self, config: DetailTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = DetailEncoder(config)
        self.quantizer = Quantizer(config.vocab_size, config.code_width)
        self.decoder = DetailDecoder(config)

    @property
    def image_size(self) -> tuple[int, int]:
        return self.config.image_size

    @property
    def grid(self) -> tuple[int, int]:
        return self.config.grid

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    def resolution(self, count: int) -> tuple[int, int]:
        config = self.config
        count = config.groups.whole(count)
        height, width = (resolution(count, config.num_tokens, side, config.alpha) for side in config.image_size)
        return height, width

    def canvas_size(self, count: int) -> tuple[int, int]:
        height, width = (in_whole_patches(side, self.config.patch_size) for side in self.resolution(count))
        return height, width

    def encode(self, images: Float[Tensor, "B 3 Y X"]) -> Int[Tensor, "B L"]:
        return self.quantizer(self.describe(self.read(images))).token_ids

    def decode(self, token_ids: Int[Tensor, "B L"]) -> Float[Tensor, "B 3 Y X"]:
        return self.paint(self._codes(token_ids)).clamp(-1, 1)

    def decode_partial(self, token_ids: Int[Tensor, "B L"], known: Bool[Tensor, "B L"]) -> Float[Tensor, "B 3 Y X"]:
        """Grey where no prefix is known. Pictures with prefixes of one length are decoded together."""
        images = torch.zeros(len(token_ids), 3, *self.image_size, device=token_ids.device)
        counts = [self.config.groups.whole(count) for count in known.long().cumprod(dim=1).sum(dim=1).tolist()]
        for count in set(counts) - {0}:
            rows = torch.tensor([row for row, own in enumerate(counts) if own == count], device=token_ids.device)
            painted = self.paint(self._codes(token_ids[rows, :count])).float()
            images[rows] = self._enlarged(painted)
        return images.clamp(-1, 1)

    def read(self, images: Float[Tensor, "B 3 Y X"]) -> PatchMemory:
        return self.encoder.read(images)

    def describe(self, memory: PatchMemory) -> Float[Tensor, "B L C"]:
        return self.encoder.describe(memory)

    def describe_again(self, memory: PatchMemory, prefix: Float[Tensor, "B K C"]) -> Float[Tensor, "B rest C"]:
        return self.encoder.describe_again(memory, prefix)

    def paint(self, codes: Float[Tensor, "B K C"]) -> Float[Tensor, "B 3 y x"]:
        height, width = self.canvas_size(codes.shape[1])
        return self.decoder(codes, (height // self.config.patch_size, width // self.config.patch_size))

    def _codes(self, token_ids: Int[Tensor, "B K"]) -> Float[Tensor, "B K C"]:
        """In the number format of the decoder."""
        return self.quantizer.lookup(token_ids).to(next(self.decoder.parameters()).dtype)

    def _enlarged(self, painted: Float[Tensor, "B 3 y x"]) -> Float[Tensor, "B 3 Y X"]:
        if painted.shape[2:] == self.image_size:
            return painted
        return F.interpolate(painted, self.image_size, mode="bicubic", align_corners=False)
