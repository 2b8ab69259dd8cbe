"""The sizes that transformers over classes and codes share."""

from dataclasses import dataclass

from oar_core.config import TransformerSizes, check_heads


@dataclass(frozen=True)
class ClassTransformerConfig(TransformerSizes):
    grid: tuple[int, int] = (16, 16)  # h, w in tokens
    vocab_size: int = 16_384
    num_classes: int = 1000  # the unconditional one comes behind them
    width: int = 1024
    num_heads: int = 16
    num_layers: int = 24

    def __post_init__(self) -> None:
        check_heads(self.width, self.num_heads)
