"""Counter-based hashing: what is random here is a function of its name, so no generator has to be kept or restored.

The mixer is the finaliser of SplitMix64 (Steele, Lea, Flood 2014). `oar_core.sampling.noise` computes it on tensors.
"""

import numpy as np
from jaxtyping import UInt64

MASK = (1 << 64) - 1
GAMMA = 0x9E3779B97F4A7C15  # 2**64 / golden ratio, odd: consecutive counters land far apart
MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
SHIFTS = (30, 27, 31)


def mix(word: int) -> int:
    """A bijection of 64-bit words in which every input bit reaches every output bit."""
    word &= MASK
    word = ((word ^ (word >> SHIFTS[0])) * MULTIPLIERS[0]) & MASK
    word = ((word ^ (word >> SHIFTS[1])) * MULTIPLIERS[1]) & MASK
    return word ^ (word >> SHIFTS[2])


def hash_words(*words: int) -> int:
    """A 64-bit hash of a sequence of integers, each taken modulo 2**64."""
    state = len(words)
    for word in words:
        state = mix((state + GAMMA) ^ mix(word))
    return state


def hash_positions(count: int, *words: int) -> UInt64[np.ndarray, "_"]:
    """`hash_words(*words, position)` of the positions from 0 to `count` - 1."""
    state = len(words) + 1
    for word in words:
        state = mix((state + GAMMA) ^ mix(word))
    return _mix_each(np.uint64((state + GAMMA) & MASK) ^ _mix_each(np.arange(count, dtype=np.uint64)))


def _mix_each(words: UInt64[np.ndarray, "_"]) -> UInt64[np.ndarray, "_"]:
    for shift, multiplier in zip(SHIFTS, MULTIPLIERS):
        words = (words ^ (words >> np.uint64(shift))) * np.uint64(multiplier)
    return words ^ (words >> np.uint64(SHIFTS[-1]))


def as_signed(word: int) -> int:
    """The signed 64-bit integer with the same bits, as tensors hold it."""
    return word - (1 << 64) if word >> 63 else word
