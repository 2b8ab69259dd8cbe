"""The sizes of a MaskGIT tokenizer."""

from dataclasses import dataclass

from oar_core.models.vq_config import LevelsConfig


@dataclass(frozen=True)
class MaskGitVqConfig(LevelsConfig):
    """Sizes of the network, as published unless changed."""

    num_blocks: int = 2  # residual blocks a level, of the encoder and of the decoder, and in the middle of each
    vocab_size: int = 1024
    code_width: int = 256
