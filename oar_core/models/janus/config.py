"""The sizes of a Janus network, as far as it makes pictures."""

from dataclasses import dataclass

from oar_core.config import TransformerSizes, check_heads


@dataclass(frozen=True)
class JanusConfig(TransformerSizes):
    """Janus-Pro-1B unless changed, and Janus-1.3B. Janus-Pro-7B has `width` 4096, 32 heads, 30 layers, and `ffn_width`
    11008."""

    grid: tuple[int, int] = (24, 24)  # h, w in tokens
    vocab_size: int = 16_384  # codes
    code_width: int = 8  # of a code's embedding, before it is as wide as the network
    condition_vocab: int = 102_400  # tokens of the language model
    max_condition: int = 512  # tokens of a prompt, its template included
    width: int = 2048
    num_heads: int = 16
    num_layers: int = 24
    ffn_width: int = 5632
    rotary_base: float = 10_000.0

    def __post_init__(self) -> None:
        check_heads(self.width, self.num_heads, 2)

    @property
    def max_cached(self) -> int:
        return self.max_condition + self.num_tokens
