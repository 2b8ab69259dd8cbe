"""The sizes of a `VqTokenizer`."""

from dataclasses import dataclass

from oar_core.config import FrozenConfig
from oar_core.errors import ConfigError


@dataclass(frozen=True)
class LevelsConfig(FrozenConfig):
    """Pixels per token along an axis: `2 ** (levels - 1)`."""

    grid: tuple[int, int] = (16, 16)  # h, w in tokens
    width: int = 128  # channels at full resolution
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)  # of the width, finest level first

    def __post_init__(self) -> None:
        if not self.multipliers:
            raise ConfigError("multipliers names no level")

    @property
    def patch_size(self) -> int:
        return 2 ** (len(self.multipliers) - 1)

    @property
    def image_size(self) -> tuple[int, int]:
        return self.grid[0] * self.patch_size, self.grid[1] * self.patch_size


@dataclass(frozen=True)
class VqConfig(LevelsConfig):
    """VQ-16 unless changed; VQ-8 has `multipliers` 1 2 2 4."""

    encoder_blocks: int = 2  # residual blocks a level
    vocab_size: int = 16_384
    code_width: int = 8
    hidden_width: int = 256  # channels between the quantizer and the networks
