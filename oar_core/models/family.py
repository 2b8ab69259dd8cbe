"""The loading interface of a family: how its networks are built from a config, and nothing more."""

from collections.abc import Callable
from dataclasses import dataclass

from oar_core.errors import ConfigError
from oar_core.models.base import Backbone, ImageTokenizer
from oar_core.models.frames import FrameBackbone
from oar_core.models.importer import Config, Importer


@dataclass(frozen=True)
class ModelFamily:
    """`backbone`, `tokenizer` and `frames` build a network from its part of a model's config; None: the family has
    none. A family that makes pictures of tokens has a `backbone`, one that makes frames of values has `frames`.

    All raise ConfigError. `importer` and `tokenizer_importer` turn published checkpoints of the two networks into this
    library's; None: there are none.
    """

    backbone: Callable[[Config], Backbone] | None = None
    tokenizer: Callable[[Config], ImageTokenizer] | None = None
    importer: Importer | None = None
    tokenizer_importer: Importer | None = None
    frames: Callable[[Config], FrameBackbone] | None = None

    def build_backbone(self, key: str, config: Config) -> Backbone:
        if self.backbone is None:
            what = "makes frames of values, and has no backbone for tokens" if self.frames else "has no backbone"
            raise ConfigError(f"family {key!r} {what}")
        return self.backbone(config)

    def build_tokenizer(self, key: str, config: Config) -> ImageTokenizer:
        if self.tokenizer is None:
            raise ConfigError(f"family {key!r} has no image tokenizer")
        return self.tokenizer(config)

    def build_frames(self, key: str, config: Config) -> FrameBackbone:
        if self.frames is None:
            raise ConfigError(f"family {key!r} makes no frames")
        return self.frames(config)
