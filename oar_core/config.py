"""Frozen configs of the networks. Each is written into a model's `config.json` and read back unchanged."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self, cast

from oar_core.errors import ConfigError


class FrozenConfig:
    """Conversion to and from plain JSON objects; an unknown key is an error, never ignored."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        known = {field.name for field in fields(cls)}  # pyright: ignore[reportArgumentType]
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(f"{cls.__name__} has no field {', '.join(unknown)}")
        return cls(**{key: _frozen(value) for key, value in values.items()})

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)  # pyright: ignore[reportArgumentType]


def _frozen(value: Any) -> Any:
    """JSON knows lists where a frozen config holds tuples."""
    return tuple(cast(list[Any], value)) if isinstance(value, list) else value


UPSAMPLES = ("transposed", "nearest")


@dataclass(frozen=True)
class TokenizerConfig(FrozenConfig):
    """A convolutional VQGAN. Pixels per token along an axis: `2 ** len(widths)`."""

    image_size: tuple[int, int] = (64, 64)  # Y, X in pixels
    widths: tuple[int, ...] = (64, 128, 256)  # channels after each halving, finest first
    encoder_blocks: int = 1  # residual blocks per resolution
    decoder_blocks: int = 2
    head_width: int = 32  # channels at full resolution in the decoder
    vocab_size: int = 1024
    code_width: int = 8
    # How the decoder doubles the resolution: by a transposed convolution, which can print a lattice of its stride, or
    # by repeated values and a convolution, which cannot (Odena et al. 2016, doi 10.23915/distill.00003).
    upsample: str = "transposed"
    full_blocks: int = 0  # residual blocks of the decoder at full resolution

    def __post_init__(self) -> None:
        if self.upsample not in UPSAMPLES:
            raise ConfigError(f"unknown upsample {self.upsample!r}; there are {', '.join(UPSAMPLES)}")
        if self.full_blocks < 0:
            raise ConfigError(f"full_blocks is {self.full_blocks}; it has to be 0 or more")
        if any(side % self.patch_size for side in self.image_size):
            raise ConfigError(f"image_size {self.image_size} is not a multiple of {self.patch_size} pixels per token")
        if min((*self.widths, self.head_width, self.vocab_size, self.code_width)) < 1:
            raise ConfigError("widths, vocab_size and code_width are positive")

    @property
    def patch_size(self) -> int:
        return 2 ** len(self.widths)

    @property
    def grid(self) -> tuple[int, int]:
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size


def check_heads(width: int, num_heads: int, multiple: int = 1) -> None:
    """Raises ConfigError where a width does not divide into heads whose width is a multiple of this."""
    if width % num_heads:
        raise ConfigError(f"width {width} is not a multiple of num_heads {num_heads}")
    if width // num_heads % multiple:
        raise ConfigError(f"head width {width // num_heads} is not a multiple of {multiple}, which rotary angles need")


class TransformerSizes(FrozenConfig):
    """Common fields of configs of transformers over a grid of tokens; each declares these fields with its own
    defaults."""

    grid: tuple[int, int]
    width: int
    num_heads: int

    @property
    def num_tokens(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def head_width(self) -> int:
        return self.width // self.num_heads


NORMS = ("layer", "rms")


@dataclass(frozen=True)
class BackboneConfig(TransformerSizes):
    """The decoupled any-order transformer: a causal context stack and a cross-attending query stack."""

    grid: tuple[int, int] = (8, 8)  # h, w in tokens
    vocab_size: int = 1024
    condition_vocab: int = 512  # ids of the text tokenizer (or class labels), special ids included
    max_condition: int = 48  # tokens of the condition prefix
    width: int = 256
    num_heads: int = 8
    num_context_layers: int = 6
    num_query_layers: int = 6
    dropout: float = 0.0
    # What kin of this network have otherwise.
    norm: str = "layer"
    ffn_width: int = 0  # 0: 8/3 of the width, in whole multiples of 64
    rotary_base: float = 100.0
    has_place_tables: bool = True  # of condition places, token positions and query positions, beside rotary angles
    has_condition_keys: bool = True  # False: keys and queries of conditions are zero, so that all see them alike
    has_mutual_commits: bool = False  # tokens that are committed in one step see each other

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ConfigError(f"unknown norm {self.norm!r}; there are {', '.join(NORMS)}")
        check_heads(self.width, self.num_heads, 4)
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout {self.dropout} is outside [0, 1)")
        if self.vocab_size < 2:
            raise ConfigError(f"vocab_size is {self.vocab_size}; there is nothing to draw from fewer than 2 codes")

    @property
    def max_cached(self) -> int:
        """Cache entries that one sequence can need: its condition prefix and every image token."""
        return self.max_condition + self.num_tokens


@dataclass(frozen=True)
class OrderPolicyConfig(FrozenConfig):
    """The order policy: a thin head on a backbone's shared memory."""

    width: int = 64
    num_layers: int = 2

    def __post_init__(self) -> None:
        if self.width < 1 or self.num_layers < 1:
            raise ConfigError("the order policy's width and num_layers are positive")


ORDER_SCORES = ("max_probability", "negative_entropy", "margin", "entropy")


@dataclass(frozen=True)
class OrderScore(FrozenConfig):
    """The score by which a model chooses its own order among the remaining positions; the highest score comes next.

    One of ORDER_SCORES, less `distance_weight` for each cell of distance to the nearest known position: a positive
    weight keeps to what is known, a negative one spreads out. All but `entropy` put the most certain position first;
    that puts the least certain first, so that what is left for the end is what the rest decides.
    """

    name: str = "max_probability"
    distance_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in ORDER_SCORES:
            raise ConfigError(f"unknown order score {self.name!r}; there are {', '.join(ORDER_SCORES)}")
