"""The sizes of a LlamaGen network, which draws classes or captions."""

from dataclasses import dataclass

from oar_core.errors import ConfigError
from oar_core.models.gpt import GptConfig


@dataclass(frozen=True)
class LlamaGenConfig(GptConfig):
    caption_width: int = 0  # of the features of a caption's tokens; 0: it draws classes
    max_caption: int = 120  # of these tokens

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.caption_width < 0 or self.max_caption < 1:
            raise ConfigError("caption_width is 0 or more, and max_caption at least 1")

    @property
    def reads_captions(self) -> bool:
        return self.caption_width > 0
