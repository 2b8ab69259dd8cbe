"""The sizes of a toy that makes frames."""

from dataclasses import dataclass

from oar_core.config import FrozenConfig, check_heads
from oar_core.errors import ConfigError


@dataclass(frozen=True)
class ToyFramesConfig(FrozenConfig):
    num_frames: int = 8
    frame_size: tuple[int, int] = (8, 8)  # Y, X in values, each of which is a pixel
    num_classes: int = 10  # the unconditional one comes behind them
    sigmas: tuple[float, ...] = (1.0, 0.625)
    width: int = 32
    num_heads: int = 2
    num_layers: int = 2

    def __post_init__(self) -> None:
        check_heads(self.width, self.num_heads)
        if min((self.num_frames, *self.frame_size, self.num_classes, self.num_layers)) < 1:
            raise ConfigError("num_frames, frame_size, num_classes and num_layers are positive")
