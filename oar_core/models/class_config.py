"""The sizes that transformers over classes and codes share."""

from dataclasses import dataclass

from oar_core.config import FrozenConfig
from oar_core.errors import ConfigError


@dataclass(frozen=True)
class ClassTransformerConfig(FrozenConfig):
    grid: tuple[int, int] = (16, 16)  # h, w in tokens
    vocab_size: int = 16_384
    num_classes: int = 1000  # the unconditional one comes behind them
    width: int = 1024
    num_heads: int = 16
    num_layers: int = 24

    def __post_init__(self) -> None:
        if self.width % self.num_heads:
            raise ConfigError(f"width {self.width} is not a multiple of num_heads {self.num_heads}")

    @property
    def num_tokens(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def head_width(self) -> int:
        return self.width // self.num_heads
