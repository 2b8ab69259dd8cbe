"""The sizes of the published tokenizers: two stacks of SigLIP's layers, which need not be of one size."""

from dataclasses import dataclass

from oar_core.config import check_heads
from oar_core.detail_config import SequenceSizes
from oar_core.errors import ConfigError


@dataclass(frozen=True)
class DetailVitConfig(SequenceSizes):
    """Raises ConfigError."""

    image_size: tuple[int, int] = (256, 256)  # Y, X in pixels
    patch_size: int = 16  # pixels of a side
    num_tokens: int = 128
    group_size: int = 8
    has_causal_first: bool = True
    is_causal: bool = True  # groups see those before them alone, in the encoder
    alpha: float = 1.5  # how fast the resolution of a prefix grows
    vocab_size: int = 8192
    code_width: int = 8
    encoder_width: int = 1152
    encoder_heads: int = 16
    encoder_layers: int = 12
    encoder_hidden: int = 4304  # of its feed-forward layers
    encoder_side: int = 16  # rows and columns of its learned places, whatever the picture has
    decoder_width: int = 768
    decoder_heads: int = 12
    decoder_layers: int = 12
    decoder_hidden: int = 3072
    decoder_side: int = 16

    def __post_init__(self) -> None:
        if any(side % self.patch_size for side in self.image_size):
            raise ConfigError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        check_heads(self.encoder_width, self.encoder_heads)
        check_heads(self.decoder_width, self.decoder_heads)
        if self.alpha <= 0 or self.num_tokens < 2:
            raise ConfigError("alpha is positive, and a sequence has at least 2 tokens")
        _ = self.groups

    @property
    def patches(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size
