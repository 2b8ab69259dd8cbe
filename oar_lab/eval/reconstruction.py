"""Measures the fidelity of an image tokenizer, and how evenly it uses its codes."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from oar_core.models.base import ImageTokenizer


@dataclass(frozen=True)
class ReconstructionReport:
    num_images: int
    psnr: float  # dB, mean over images of the 8-bit reconstruction
    codes_used: float  # share of the codebook that occurs at least once
    perplexity: float  # exp of the entropy of the codes' frequencies


@torch.inference_mode()
def measure_reconstruction(
    tokenizer: ImageTokenizer, batches: Iterable[Float[Tensor, "B 3 Y X"]]
) -> ReconstructionReport:
    counts = torch.zeros(tokenizer.vocab_size, dtype=torch.float64)
    ratios: list[Tensor] = []
    for images in batches:
        token_ids = tokenizer.encode(images)
        counts += torch.bincount(token_ids.flatten().cpu(), minlength=tokenizer.vocab_size)
        ratios.append(psnr(_to_bytes(images), _to_bytes(tokenizer.decode(token_ids))))
    frequency = counts / counts.sum()
    entropy = -(frequency * frequency.clamp_min(1e-12).log()).sum()
    every = torch.cat(ratios)
    return ReconstructionReport(
        len(every), every.mean().item(), (counts > 0).double().mean().item(), entropy.exp().item()
    )


def psnr(real: UInt8[Tensor, "B 3 Y X"], fake: UInt8[Tensor, "B 3 Y X"]) -> Float[Tensor, "B"]:
    """Peak signal-to-noise ratio in dB; an exact copy counts as an error of half a grey level in one pixel."""
    error = (real.float() - fake.float()).square().flatten(1).mean(1)
    floor = 0.25 / real[0].numel()
    return 10 * torch.log10(255.0**2 / error.clamp_min(floor))


def _to_bytes(images: Float[Tensor, "B 3 Y X"]) -> UInt8[Tensor, "B 3 Y X"]:
    return images.float().add(1).mul(127.5).round().clamp(0, 255).to("cpu", torch.uint8)
