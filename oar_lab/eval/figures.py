"""Distances of one evaluation with their resamples, which intervals and comparisons are made of."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from oar_core.digests import module_digest
from oar_core.models.model import Model
from oar_core.stored import cached_json, digest
from oar_lab.eval.bootstrap import FrechetReference, Resampled, resample_counts, resampled_kernel_distance
from oar_lab.eval.lite0 import WEIGHTS_SHA256, why_no_lite0
from oar_lab.eval.lite0_features import Lite0Features, picture_digest
from oar_lab.eval.reconstructed import read_reconstructions, reconstruct
from oar_lab.eval.reference import Reference

FORMAT = 2  # of the stored resamples
SEED = 0  # of what is drawn again: the same for all arms, or they would not be paired


@dataclass(frozen=True)
class Figure:
    """`name` is its key in a report's `figures`. Lower is better for all of them."""

    name: str
    title: str
    scale: float = 1.0
    is_relative: bool = True  # whether a change is reported as a share; KID may be 0 or less
    is_of_reconstructions: bool = False  # whether the other side is what the tokenizer makes of real pictures


FIGURES = (
    Figure("fd_eval", "FD-eval"),
    Figure("fd_rec", "FD-rec", is_of_reconstructions=True),
    Figure("lite0_fd_real", "Lite0-FD, real"),
    Figure("lite0_fd_rec", "Lite0-FD, rec", is_of_reconstructions=True),
    Figure("lite0_kid_real", "Lite0-KID x1000, real", scale=1000, is_relative=False),
    Figure("lite0_kid_rec", "Lite0-KID x1000, rec", scale=1000, is_relative=False, is_of_reconstructions=True),
)


@dataclass(frozen=True)
class Compared:
    """Generated pictures, with what they are held against. `folder` keeps what costs time."""

    pipeline: Model
    reference: Reference
    chosen: Int[Tensor, "M"]  # the held-out pictures that lent their captions
    pixels: UInt8[np.ndarray, "M Y X 3"]
    features: Float[Tensor, "M D"]  # the evaluator's
    folder: Path

    @property
    def reconstruction_key(self) -> str:
        """Arms with another key were held against other reconstructions."""
        return digest(self.reference.key, module_digest(self.pipeline.tokenizer), len(self.chosen))


def measure_figures(compared: Compared, num_resamples: int) -> dict[str, Any]:
    """The part of a report that holds all of FIGURES that can be measured here, and why the rest cannot."""
    reason = why_no_lite0()
    key = digest(FORMAT, picture_digest(compared.pixels), compared.reconstruction_key, num_resamples, SEED, reason)

    def compute() -> dict[str, Any]:
        counts = resample_counts(len(compared.pixels), num_resamples, SEED)
        found = _evaluator_figures(compared, counts)
        lite0: dict[str, Any] = {"unavailable": reason}
        if not reason:
            figures, lite0 = _lite0_figures(compared, counts)
            found |= figures
        return {
            "num_resamples": num_resamples,
            "seed": SEED,
            "reconstructions": compared.reconstruction_key,
            "lite0": lite0,
            "values": {name: figure.value for name, figure in found.items()},
            "resamples": {
                name: [float(f"{value:.7g}") for value in figure.resamples] for name, figure in found.items()
            },
        }

    return cached_json(compared.folder / f"figures-{key}.json", compute)


def _evaluator_figures(compared: Compared, counts: Int[np.ndarray, "R M"]) -> dict[str, Resampled]:
    reconstructed = read_reconstructions(compared.pipeline, compared.reference, compared.chosen, compared.folder)
    sides = {"fd_eval": compared.reference.held_out_reading.features, "fd_rec": reconstructed.features}
    return {name: FrechetReference(side).resampled(compared.features, counts) for name, side in sides.items()}


def _lite0_figures(compared: Compared, counts: Int[np.ndarray, "R M"]) -> tuple[dict[str, Resampled], dict[str, Any]]:
    """Figures, and what the tokenizer alone has: its reconstructions against the real pictures."""
    cache = Lite0Features(compared.folder, compared.pipeline.device)
    held_out = compared.reference.held_out.pixels
    features, real = cache.of(compared.pixels), cache.of(held_out)
    reconstructed = cache.under(
        digest("reconstructions", compared.reconstruction_key),
        lambda: reconstruct(compared.pipeline, held_out[compared.chosen.numpy()]),
    )
    to_real, to_rec = FrechetReference(real), FrechetReference(reconstructed)
    figures = {
        "lite0_fd_real": to_real.resampled(features, counts),
        "lite0_fd_rec": to_rec.resampled(features, counts),
        "lite0_kid_real": resampled_kernel_distance(real, features, counts),
        "lite0_kid_rec": resampled_kernel_distance(reconstructed, features, counts, share_prompts=True),
    }
    key = digest(FORMAT, compared.reconstruction_key, len(counts), SEED)
    floor = cached_json(compared.folder / f"lite0-floor-{key}.json", lambda: _distances(real, reconstructed, counts))
    return figures, {"weights_sha256": WEIGHTS_SHA256, "num_real": len(real), "reconstructions": floor}


def lite0_distances(
    real: UInt8[np.ndarray, "M Y X 3"], fake: UInt8[np.ndarray, "N Y X 3"], cache: Lite0Features, num_resamples: int
) -> dict[str, Any]:
    """Lite0-FD and Lite0-KID of pictures to real ones, with intervals. Raises WeightsError without the weights."""
    return _distances(cache.of(real), cache.of(fake), resample_counts(len(fake), num_resamples, SEED))


def _distances(
    real: Float[Tensor, "M 1280"], fake: Float[Tensor, "N 1280"], counts: Int[np.ndarray, "R N"]
) -> dict[str, Any]:
    found = {"fd": FrechetReference(real).resampled(fake, counts), "kid": resampled_kernel_distance(real, fake, counts)}
    return {
        name: {"value": figure.value, "interval": list(figure.interval) if len(counts) else None}
        for name, figure in found.items()
    }


def relative_change(value: float, base: float) -> float:
    return value / base - 1


def difference(value: float, base: float) -> float:
    return value - base


def change_of(figure: Figure) -> Callable[[float, float], float]:
    return relative_change if figure.is_relative else difference
