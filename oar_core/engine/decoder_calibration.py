"""The number format in which a CPU decodes pictures, by measurement: bf16 where it is quicker and nobody sees it."""

import hashlib
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from oar_core.engine.contest import decide
from oar_core.engine.measurements import machine, one_thread, read_or_measure
from oar_core.models.base import ImageTokenizer

LEAST_GAIN = 1.2  # times as fast; what a change of pixels has to be worth
MOST_GREY_LEVELS = 1.5  # of 255, on average over a picture, between the two formats
LEAST_ROUNDS, MOST_ROUNDS = 3, 8  # a picture may take seconds
FORMAT = 1  # of the files

Clock = Callable[[], float]


@dataclass(frozen=True)
class DecoderCalibration:
    dtype: str
    gain: float  # seconds in fp32 over those in bf16
    grey_levels: float  # by which their pictures differ on average

    @property
    def words(self) -> str:
        """One line for logs."""
        return f"decoder={self.dtype} bf16_gain={self.gain:.2f} grey_levels={self.grey_levels:.2f}"

    @classmethod
    @torch.inference_mode()
    def measure(cls, exact: ImageTokenizer, rounded: ImageTokenizer, clock: Clock = time.thread_time) -> Self:
        """The decoder in fp32 and in bf16, on codes drawn at random."""
        codes = torch.randint(
            exact.vocab_size, (1, exact.grid[0] * exact.grid[1]), generator=torch.Generator().manual_seed(0)
        )
        with one_thread():
            pictures = [tokenizer.decode(codes) for tokenizer in (exact, rounded)]
            difference = _grey_levels(pictures[0], pictures[1])
            ratio = decide(
                lambda: [_seconds(tokenizer, codes, clock) for tokenizer in (exact, rounded)], LEAST_ROUNDS, MOST_ROUNDS
            ).ratios[1]
        is_better = ratio * LEAST_GAIN <= 1 and difference <= MOST_GREY_LEVELS
        return cls("bfloat16" if is_better else "float32", round(1 / ratio, 3), round(difference, 3))

    @classmethod
    def stored(cls, folder: Path, model_hash: str, exact: ImageTokenizer, load: Callable[[], ImageTokenizer]) -> Self:
        """Reads the folder's choice for this model on this machine; else measures it and keeps it there. `load` gives
        the tokenizer that decodes in bf16."""
        digest = hashlib.sha256(repr((FORMAT, machine(), model_hash)).encode()).hexdigest()[:16]
        path = folder / f"{platform.machine()}-{digest}-decoder.json"
        return read_or_measure(path, cls, lambda: cls.measure(exact, load()))


def _seconds(tokenizer: ImageTokenizer, codes: Tensor, clock: Clock) -> float:
    start = clock()
    tokenizer.decode(codes)
    return clock() - start


def _grey_levels(left: Float[Tensor, "1 3 Y X"], right: Float[Tensor, "1 3 Y X"]) -> float:
    return 127.5 * (left - right).abs().mean().item()
