"""Counter-based noise: a draw is a hash of (seed, image index, position, code), on any device.

So a picture does not depend on its neighbours in the batch, on its arrival, or on an interruption half-way.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oar_core.order.hashing import GAMMA, MULTIPLIERS, SHIFTS, as_signed, hash_words

# They keep the hashes of noise apart from those of orders, and from each other.
_TOKEN_NOISE = 0x746F6B656E
_REVISION_NOISE = 0x726576697365
_VALUE_NOISE = 0x76616C7565
_UNIFORM_BITS = 23  # with the half added below, exact in fp32 and never 0 or 1


def noise_key(seed: int, image_index: int) -> int:
    """The key of a picture's noise, a signed 64-bit integer."""
    return as_signed(hash_words(_TOKEN_NOISE, seed, image_index))


def revision_key(seed: int, image_index: int) -> int:
    """The key of the noise under which a picture's tokens are drawn again."""
    return as_signed(hash_words(_REVISION_NOISE, seed, image_index))


def value_noise_key(seed: int, image_index: int) -> int:
    """The key of `normal`, as `noise_key` is that of `gumbel`."""
    return as_signed(hash_words(_VALUE_NOISE, seed, image_index))


def normal(keys: Int[Tensor, "R"], draws: Int[Tensor, "R"], num_values: int) -> Float[Tensor, "R V"]:
    """Standard normal noise in fp32: each row's values of its draw of that number."""
    streams = _mix(keys ^ _mix(draws))
    bits = _shift_right(_mix(streams[:, None] + code_counters(num_values, keys.device)), 64 - _UNIFORM_BITS)
    return torch.special.ndtri((bits.float() + 0.5) * 2.0**-_UNIFORM_BITS)


def gumbel(keys: Int[Tensor, "R"], positions: Int[Tensor, "R G"], vocab_size: int) -> Float[Tensor, "R G V"]:
    """Standard Gumbel noise in fp32, for each code at each position of each row."""
    return gumbel_of(keys, positions, code_counters(vocab_size, keys.device))


def code_counters(vocab_size: int, device: torch.device) -> Int[Tensor, "V"]:
    """Counters that make the hashes of a position's codes differ."""
    return torch.arange(1, vocab_size + 1, device=device) * as_signed(GAMMA)


def gumbel_of(
    keys: Int[Tensor, "R"], positions: Int[Tensor, "R G"], counters: Int[Tensor, "V"]
) -> Float[Tensor, "R G V"]:
    """`gumbel`, where the counters are there already."""
    streams = _mix(keys[:, None] ^ _mix(positions))
    bits = _shift_right(_mix(streams[..., None] + counters), 64 - _UNIFORM_BITS)
    uniform = (bits.float() + 0.5) * 2.0**-_UNIFORM_BITS
    return uniform.log_().neg_().log_().neg_()


def _mix(words: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """`order.hashing.mix` on int64: products wrap around modulo 2**64 as they do there."""
    words = (words ^ _shift_right(words, SHIFTS[0])).mul_(as_signed(MULTIPLIERS[0]))
    words = words.bitwise_xor_(_shift_right(words, SHIFTS[1])).mul_(as_signed(MULTIPLIERS[1]))
    return words.bitwise_xor_(_shift_right(words, SHIFTS[2]))


def _shift_right(words: Int[Tensor, "*n"], count: int) -> Int[Tensor, "*n"]:
    """Shifts in zeros, where int64's own shift repeats the sign."""
    return (words >> count).bitwise_and_((1 << (64 - count)) - 1)
