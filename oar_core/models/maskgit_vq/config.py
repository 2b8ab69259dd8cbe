"""The sizes of a MaskGIT tokenizer."""

from dataclasses import dataclass

from oar_core.config import FrozenConfig
from oar_core.errors import ConfigError


@dataclass(frozen=True)
class MaskGitVqConfig(FrozenConfig):
    """As published unless changed. Pixels per token along an axis: `2 ** (levels - 1)`."""

    grid: tuple[int, int] = (16, 16)  # h, w in tokens
    width: int = 128  # channels at full resolution
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)  # of the width, finest level first
    num_blocks: int = 2  # residual blocks a level, of the encoder and of the decoder, and in the middle of each
    vocab_size: int = 1024
    code_width: int = 256

    def __post_init__(self) -> None:
        if not self.multipliers:
            raise ConfigError("multipliers names no level")

    @property
    def patch_size(self) -> int:
        return 2 ** (len(self.multipliers) - 1)

    @property
    def image_size(self) -> tuple[int, int]:
        return self.grid[0] * self.patch_size, self.grid[1] * self.patch_size
