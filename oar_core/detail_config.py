"""Frozen configs of the networks that write pictures from coarse to fine; training and the family both read them."""

from dataclasses import dataclass
from itertools import accumulate

from oar_core.config import FrozenConfig, check_heads
from oar_core.errors import ConfigError

# What turns an entry of the sequence: the place of the token that it foretells; or, as published, the place that it has
# itself, by slower angles, and the queries and keys of a condition are zero.
FORETOLD, HELD = "foretold", "held"


@dataclass(frozen=True)
class TokenGroups:
    """The division of a sequence of tokens: groups of `size`, the first of which is drawn token by token unless
    `has_causal_first` is false. Raises ConfigError."""

    num_tokens: int
    size: int
    has_causal_first: bool = True

    def __post_init__(self) -> None:
        if min(self.num_tokens, self.size) < 1 or self.num_tokens % self.size:
            raise ConfigError(f"{self.num_tokens} tokens do not divide into groups of {self.size}")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of tokens that each step draws."""
        num_groups = self.num_tokens // self.size
        first = (1,) * self.size if self.has_causal_first else (self.size,)
        return (*first, *(self.size,) * (num_groups - 1))

    @property
    def ends(self) -> tuple[int, ...]:
        """Number of tokens after each step: the lengths that a prefix can have."""
        return tuple(accumulate(self.sizes))

    @property
    def limits(self) -> tuple[int, ...]:
        """For each token, the number of tokens that it may see from the first on: those of its step and of steps
        before."""
        return tuple(end for end, size in zip(self.ends, self.sizes) for _ in range(size))

    def whole(self, count: int) -> int:
        """The longest prefix of at most `count` tokens; 0 where there is none."""
        return max((end for end in self.ends if end <= count), default=0)


class SequenceSizes(FrozenConfig):
    """Common fields of configs of networks over such a sequence; each declares these fields with its own defaults."""

    num_tokens: int
    group_size: int
    has_causal_first: bool

    @property
    def groups(self) -> TokenGroups:
        """Raises ConfigError."""
        return TokenGroups(self.num_tokens, self.group_size, self.has_causal_first)

    @property
    def grid(self) -> tuple[int, int]:
        """The sequence as a grid of one row."""
        return 1, self.num_tokens


@dataclass(frozen=True)
class DetailTokenizerConfig(SequenceSizes):
    """A one-dimensional tokenizer. Raises ConfigError."""

    image_size: tuple[int, int] = (64, 64)  # Y, X in pixels
    patch_size: int = 8  # pixels of a side
    num_tokens: int = 32
    group_size: int = 4
    has_causal_first: bool = True  # the tokens of the first group see those before them alone
    is_causal: bool = True  # groups see those before them alone; without it tokens have no order
    alpha: float = 1.5  # how fast the resolution of a prefix grows: the greater, the sooner
    vocab_size: int = 512
    code_width: int = 8
    width: int = 192
    num_heads: int = 4
    encoder_layers: int = 4
    decoder_layers: int = 4

    def __post_init__(self) -> None:
        if any(side % self.patch_size for side in self.image_size):
            raise ConfigError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        check_heads(self.width, self.num_heads, 4)
        if self.alpha <= 0:
            raise ConfigError(f"alpha is {self.alpha}; it has to be positive")
        if min(self.vocab_size, self.code_width, self.encoder_layers, self.decoder_layers) < 1:
            raise ConfigError("vocab_size, code_width, encoder_layers and decoder_layers are positive")
        if self.num_tokens < 2:
            raise ConfigError("a sequence has at least 2 tokens")
        _ = self.groups

    @property
    def patches(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size


@dataclass(frozen=True)
class DetailBackboneConfig(SequenceSizes):
    """The transformer over such a sequence. Raises ConfigError."""

    num_tokens: int = 32
    group_size: int = 4
    has_causal_first: bool = True
    vocab_size: int = 512
    condition_vocab: int = 512  # ids of the text tokenizer, or classes and the unconditional one
    max_condition: int = 64  # tokens of the condition prefix; 1 for classes
    width: int = 256
    num_heads: int = 4
    num_layers: int = 6
    dropout: float = 0.1
    # What published networks have otherwise.
    norm: str = "layer"  # or rms
    ffn_width: int = 0  # of the feed-forward layers; 0: by the width
    angles: str = FORETOLD  # or HELD

    def __post_init__(self) -> None:
        check_heads(self.width, self.num_heads, 4)
        if self.norm not in {"layer", "rms"} or self.angles not in {FORETOLD, HELD}:
            raise ConfigError(f"norm is layer or rms, and angles are {FORETOLD} or {HELD}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout {self.dropout} is outside [0, 1)")
        if self.vocab_size < 2 or min(self.condition_vocab, self.max_condition, self.num_layers) < 1:
            raise ConfigError("vocab_size is at least 2; condition_vocab, max_condition and num_layers are positive")
        _ = self.groups

    @property
    def head_width(self) -> int:
        return self.width // self.num_heads
