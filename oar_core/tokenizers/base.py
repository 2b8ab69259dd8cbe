"""The contract of every image tokenizer: image <-> token ids."""

from typing import Protocol

from jaxtyping import Bool, Float, Int
from torch import Tensor


class ImageTokenizer(Protocol):
    """Pixels are floats in [-1, 1]; ids run over the grid row by row; `decode_partial` accepts any id where unknown."""

    @property
    def grid(self) -> tuple[int, int]: ...

    @property
    def vocab_size(self) -> int: ...

    def encode(self, images: Float[Tensor, "B 3 Y X"]) -> Int[Tensor, "B L"]: ...

    def decode(self, token_ids: Int[Tensor, "B L"]) -> Float[Tensor, "B 3 Y X"]: ...

    def decode_partial(self, token_ids: Int[Tensor, "B L"], known: Bool[Tensor, "B L"]) -> Float[Tensor, "B 3 Y X"]: ...
