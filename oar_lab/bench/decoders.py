"""Measures what decoding in bf16 gains, and how much it changes pictures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from oar_core.engine.decoder_calibration import DecoderCalibration
from oar_core.models.base import ImageTokenizer
from oar_core.models.load import family, load_decoder
from oar_core.nn.packed_conv import pack_convs
from oar_core.train.run import seeded_init
from oar_core.weights import Manifest
from oar_lab.bench.clock import Clock, Setting
from oar_lab.bench.table import BenchReport, table

PUBLISHED = ("llamagen_vq", "maskgit_vq")
Make = Callable[[torch.dtype], ImageTokenizer]


@dataclass(frozen=True)
class DecodersReport(BenchReport):
    measured: dict[str, DecoderCalibration]
    setting: Setting

    def table(self) -> str:
        headers = ("decoder", "times as fast in bf16", "grey levels of difference", "chosen")
        return table(headers, ((name, each.gain, each.grey_levels, each.dtype) for name, each in self.measured.items()))


def decoders(weights: Path) -> dict[str, Make]:
    """Decoders of the models there, and of published tokenizers with random weights. Raises WeightsError."""
    manifest = Manifest.load(weights)

    def shipped(name: str, dtype: torch.dtype) -> ImageTokenizer:
        return load_decoder(manifest.folder(name), "cpu", dtype)

    return {
        **{name: partial(shipped, name) for name in manifest.entries},
        **{f"{key}, random weights": partial(_random, key) for key in PUBLISHED},
    }


def _random(key: str, dtype: torch.dtype) -> ImageTokenizer:
    with seeded_init(0):
        tokenizer = family(key).build_tokenizer(key, {})
    tokenizer = tokenizer.to(memory_format=torch.channels_last).eval()  # pyright: ignore[reportCallIssue]
    tokenizer.decode_in(dtype)
    pack_convs(tokenizer)
    return tokenizer


def measure_decoders(makes: Mapping[str, Make]) -> DecodersReport:
    """Measures decoding of one picture each."""
    torch.set_num_threads(1)
    measured = {
        name: DecoderCalibration.measure(make(torch.float32), make(torch.bfloat16)) for name, make in makes.items()
    }
    return DecodersReport(measured, Clock(torch.device("cpu")).setting(torch.float32))
