"""Least operations and bytes of the parts of a picture, from the configuration alone.

An operation is an addition or a multiplication of a matrix product or a convolution. Bytes are those that have to be
read once whatever is kept in caches: weights once a call, keys and values once a row, activations not at all.
"""

from dataclasses import dataclass

from oar_core.config import BackboneConfig, TokenizerConfig
from oar_core.nn.feed_forward import hidden_width


@dataclass(frozen=True)
class Work:
    flops: int
    num_bytes: int

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flops + other.flops, self.num_bytes + other.num_bytes)


def prefill_work(config: BackboneConfig, lengths: list[int], item_size: int) -> Work:
    """Rows of `lengths` condition tokens, each of which sees all of its row's."""
    return _context(config, sum(lengths), [(length, length) for length in lengths], item_size)


def commit_work(config: BackboneConfig, rows: int, tokens: int, entries: int, item_size: int) -> Work:
    """`tokens` new tokens of each row, which see `entries` entries, themselves included."""
    return _context(config, rows * tokens, [(tokens, entries)] * rows, item_size)


def query_work(config: BackboneConfig, rows: int, queries: int, entries: int, item_size: int) -> Work:
    """`queries` positions of each row, which see `entries` entries; the shared memory is read once."""
    width, layers, total = config.width, config.num_query_layers, rows * queries
    per_layer = 2 * width * width + _feed_forward(config)
    head = width * config.vocab_size
    flops = 2 * total * (layers * per_layer + head) + 4 * total * entries * width * layers
    return Work(flops, item_size * (layers * per_layer + head + rows * 2 * entries * width))


def sampling_work(config: BackboneConfig, rows: int, queries: int) -> Work:
    """The rows' fp32 logits are read once; what is done with each of them is not counted as operations."""
    return Work(0, 4 * rows * queries * config.vocab_size)


def decode_work(config: TokenizerConfig, images: int) -> Work:
    """Convolutions of the decoder, in fp32."""
    height, width = config.grid
    area = height * width
    macs, weights = 0, 0
    widths = config.widths[::-1]

    def convolve(inputs: int, outputs: int, kernel: int, places: int) -> None:
        nonlocal macs, weights
        macs += inputs * outputs * kernel * kernel * places
        weights += inputs * outputs * kernel * kernel

    convolve(config.code_width, widths[0], 3, area)
    for channels, next_channels in zip(widths, (*widths[1:], config.head_width)):
        for _ in range(2 * config.decoder_blocks):
            convolve(channels, channels, 3, area)
        convolve(channels, next_channels, 4, area)  # transposed: each place of its input spreads over the kernel
        area *= 4
    convolve(config.head_width, 3, 3, area)
    return Work(2 * macs * images, 4 * (weights + images * 3 * area))


def _context(config: BackboneConfig, tokens: int, rows: list[tuple[int, int]], item_size: int) -> Work:
    """`rows`: new tokens and entries seen of each."""
    width, layers = config.width, config.num_context_layers
    per_layer = 4 * width * width + _feed_forward(config)
    memory = 2 * width * width
    attention = sum(new * seen for new, seen in rows)
    flops = 2 * tokens * (layers * per_layer + memory) + 4 * attention * width * layers
    entries = sum(seen for _, seen in rows)
    return Work(flops, item_size * (layers * (per_layer + 2 * entries * width) + memory))


def _feed_forward(config: BackboneConfig) -> int:
    return 3 * config.width * hidden_width(config.width)
