"""The contract of image tokenizers."""

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class ImageTokenizer(nn.Module, ABC):
    """Pixels are floats in [-1, 1]; ids run over the grid row by row.

    `decode_partial` accepts any id where unknown. It decodes a code for "unknown" there, or a neutral one where the
    tokenizer was trained without (`has_unknown_code` is false): so far from what it knows, it had better not be asked
    about many.
    """

    has_unknown_code: ClassVar[bool] = False  # whether it was trained to decode pictures with unknown positions
    decoder: nn.Module  # from vectors of codes to pixels

    def decode_in(self, dtype: torch.dtype) -> None:
        """Sets the number format of the decoder, in place. What is encoded, and which vector a code has, stay as they
        are."""
        self.decoder.to(dtype)

    def to_decoder(self, grid: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """Vectors as the decoder takes them: in its number format, channels last."""
        dtype = next(self.decoder.parameters()).dtype
        return grid.to(dtype).contiguous(memory_format=torch.channels_last)

    @property
    @abstractmethod
    def image_size(self) -> tuple[int, int]:
        """Y, X in pixels."""

    @property
    @abstractmethod
    def grid(self) -> tuple[int, int]: ...

    @property
    @abstractmethod
    def vocab_size(self) -> int: ...

    def resolution(self, count: int) -> tuple[int, int]:  # noqa: ARG002
        """Y, X in pixels that the first `count` tokens tell of: of a grid all, as each tells of its own place."""
        return self.image_size

    @abstractmethod
    def encode(self, images: Float[Tensor, "B 3 Y X"]) -> Int[Tensor, "B L"]: ...

    @abstractmethod
    def decode(self, token_ids: Int[Tensor, "B L"]) -> Float[Tensor, "B 3 Y X"]: ...

    @abstractmethod
    def decode_partial(self, token_ids: Int[Tensor, "B L"], known: Bool[Tensor, "B L"]) -> Float[Tensor, "B 3 Y X"]: ...


class GridSizes(Protocol):
    """Sizes that every tokenizer's config has."""

    @property
    def image_size(self) -> tuple[int, int]: ...
    @property
    def grid(self) -> tuple[int, int]: ...
    @property
    def vocab_size(self) -> int: ...


class GridTokenizer(ImageTokenizer):
    """A tokenizer whose config says its sizes."""

    def __init__(self, sizes: GridSizes) -> None:
        super().__init__()
        self._sizes = sizes

    @property
    def image_size(self) -> tuple[int, int]:
        return self._sizes.image_size

    @property
    def grid(self) -> tuple[int, int]:
        return self._sizes.grid

    @property
    def vocab_size(self) -> int:
        return self._sizes.vocab_size
