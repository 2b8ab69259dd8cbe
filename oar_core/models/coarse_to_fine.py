"""Image tokenizers whose tokens run from coarse to fine: what their training asks beside the contract of
`ImageTokenizer`."""

from abc import abstractmethod
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from oar_core.detail_config import DetailTokenizerConfig
from oar_core.models.base import ImageTokenizer
from oar_core.models.oar.quantizer import Quantizer
from oar_core.nn.attention import attend


@dataclass(frozen=True)
class PatchMemory:
    """Keys and values of a picture's patches in each layer of the encoder, which all see each other: a
    `KeyValueStore` that keeps what passes through it."""

    keys: list[Float[Tensor, "B N P H"]] = field(default_factory=list[Tensor])
    values: list[Float[Tensor, "B N P H"]] = field(default_factory=list[Tensor])

    def attend(
        self,
        layer: int,
        queries: Float[Tensor, "B P N H"],
        keys: Float[Tensor, "B P N H"],
        values: Float[Tensor, "B P N H"],
    ) -> Float[Tensor, "B P D"]:
        assert layer == len(self.keys), "layers are passed once, in turn"
        self.keys.append(keys.transpose(1, 2))
        self.values.append(values.transpose(1, 2))
        return attend(queries, self.keys[layer], self.values[layer], None)


class CoarseToFineTokenizer(ImageTokenizer):
    """Each prefix of a picture's tokens is a picture of a resolution of its own.

    A token depends on the picture and on tokens of its group and of groups before, never on later ones.
    """

    config: DetailTokenizerConfig
    quantizer: Quantizer
    has_unknown_code = True  # prefixes are what it was trained on

    @abstractmethod
    def canvas_size(self, count: int) -> tuple[int, int]:
        """Y, X in pixels of the picture that is decoded from a prefix: the resolution in whole patches."""

    @abstractmethod
    def read(self, images: Float[Tensor, "B 3 Y X"]) -> PatchMemory: ...

    @abstractmethod
    def describe(self, memory: PatchMemory) -> Float[Tensor, "B L C"]:
        """Vectors of all tokens, before they are quantised."""

    @abstractmethod
    def describe_again(self, memory: PatchMemory, prefix: Float[Tensor, "B K C"]) -> Float[Tensor, "B rest C"]:
        """Vectors of the tokens behind a prefix of codes, perhaps wrong ones, that they make up for."""

    @abstractmethod
    def paint(self, codes: Float[Tensor, "B K C"]) -> Float[Tensor, "B 3 y x"]:
        """Training pass of the decoder: a prefix of codes as a picture of `canvas_size`; nothing is clamped."""
