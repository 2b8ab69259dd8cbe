"""What image tokenizers over sequences have in common: each prefix of a picture's tokens is a picture."""

from abc import abstractmethod
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from oar_core.detail_config import TokenGroups
from oar_core.models.image_tokenizer import GridSizes, GridTokenizer
from oar_core.models.prefix_resolution import in_whole_patches, resolution


class PrefixSizes(GridSizes, Protocol):
    """Of such a tokenizer's config, what its pictures and tokens are like."""

    @property
    def patch_size(self) -> int: ...
    @property
    def num_tokens(self) -> int: ...
    @property
    def alpha(self) -> float: ...
    @property
    def groups(self) -> TokenGroups: ...


class PrefixTokenizer(GridTokenizer):
    """A partial picture is decoded from its known tokens up to the first unknown one, at the resolution of that prefix,
    and enlarged to the size of the whole picture."""

    has_unknown_code = True  # prefixes are what it was trained on

    def __init__(self, sizes: PrefixSizes) -> None:
        super().__init__(sizes)
        self._prefixes = sizes

    def resolution(self, count: int) -> tuple[int, int]:
        sizes = self._prefixes
        count = sizes.groups.whole(count)
        height, width = (resolution(count, sizes.num_tokens, side, sizes.alpha) for side in sizes.image_size)
        return height, width

    def canvas_size(self, count: int) -> tuple[int, int]:
        """Y, X in pixels of the picture that is decoded from a prefix: the resolution in whole patches."""
        height, width = (in_whole_patches(side, self._prefixes.patch_size) for side in self.resolution(count))
        return height, width

    @abstractmethod
    def lookup(self, token_ids: Int[Tensor, "B K"]) -> Float[Tensor, "B K C"]:
        """Vectors of codes, in the number format of the decoder."""

    @abstractmethod
    def paint(self, codes: Float[Tensor, "B K C"]) -> Float[Tensor, "B 3 y x"]:
        """A prefix of codes as a picture of `canvas_size`; nothing is clamped."""

    def decode(self, token_ids: Int[Tensor, "B L"]) -> Float[Tensor, "B 3 Y X"]:
        return self.paint(self.lookup(token_ids)).clamp(-1, 1)

    def decode_partial(self, token_ids: Int[Tensor, "B L"], known: Bool[Tensor, "B L"]) -> Float[Tensor, "B 3 Y X"]:
        """Grey where no prefix is known. Pictures with prefixes of one length are decoded together."""
        images = torch.zeros(len(token_ids), 3, *self.image_size, device=token_ids.device)
        counts = [self._prefixes.groups.whole(count) for count in known.long().cumprod(dim=1).sum(dim=1).tolist()]
        for count in set(counts) - {0}:
            rows = torch.tensor([row for row, own in enumerate(counts) if own == count], device=token_ids.device)
            painted = self.paint(self.lookup(token_ids[rows, :count])).float()
            images[rows] = self._enlarged(painted)
        return images.clamp(-1, 1)

    def _enlarged(self, painted: Float[Tensor, "B 3 y x"]) -> Float[Tensor, "B 3 Y X"]:
        if painted.shape[2:] == self.image_size:
            return painted
        return F.interpolate(painted, self.image_size, mode="bicubic", align_corners=False)
