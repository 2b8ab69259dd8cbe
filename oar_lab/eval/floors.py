"""Floors that no generator on this tokenizer and data can beat: real against real pictures, and reconstructions."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from oar_core.models.model import Model
from oar_lab.eval.agreement import agreement
from oar_lab.eval.frechet import Gaussian, frechet_distance
from oar_lab.eval.kid import kernel_distance
from oar_lab.eval.manifold import precision_recall
from oar_lab.eval.reconstructed import BATCH, read_reconstructions, reconstruct
from oar_lab.eval.reconstruction import ReconstructionReport, measure_reconstruction
from oar_lab.eval.reference import Reference

MAX_MEASURED = 2000  # pictures for PSNR and code usage, which settle early


@dataclass(frozen=True)
class Distances:
    """Distances of a set of pictures to the held-out real ones. `fd_eval` is squared, and falls as `num_samples`
    grows."""

    num_samples: int
    fd_eval: float
    kid: float
    kid_standard_error: float
    precision: float
    recall: float


@dataclass(frozen=True)
class Floors:
    """`halves`: one half of the held-out rows against the other. `training`: as many training pictures as samples.

    Agreement is the share of attributes that the evaluator reads off rightly.
    """

    training_reconstructions: float  # FD-eval of reconstructed training pictures to reconstructed held-out ones
    halves: Distances
    training: Distances
    reconstruction: Distances
    real_agreement: dict[str, float]
    reconstruction_agreement: dict[str, float]
    tokenizer: ReconstructionReport


@dataclass(frozen=True)
class Sample:
    """Features of pictures, and the label row that each belongs to."""

    features: Float[Tensor, "M D"]
    row_of: Int[Tensor, "M"]

    def one_per_row(self) -> Float[Tensor, "R D"]:
        """One random picture of each row, in random order."""
        order = torch.randperm(len(self.row_of), generator=torch.Generator().manual_seed(0))
        rows, row_at = self.row_of[order].unique(return_inverse=True)
        first = torch.full((len(rows),), len(order)).scatter_reduce(0, row_at, torch.arange(len(order)), "amin")
        return self.features[order[first.sort().values]]


def distances(sample: Sample, real: Sample) -> Distances:
    """Precision and recall on one picture of each row, and as many of either side: frames of one clip are near copies,
    so balls that reach to the third neighbour would never leave the clip."""
    features = sample.features
    kid = kernel_distance(real.features, features)
    pair = real.one_per_row(), sample.one_per_row()
    count = min(map(len, pair))
    manifold = precision_recall(*(side[:count] for side in pair))
    return Distances(
        num_samples=len(features),
        fd_eval=frechet_distance(Gaussian.fit(features), Gaussian.fit(real.features)),
        kid=kid.value,
        kid_standard_error=kid.standard_error,
        precision=manifold.precision,
        recall=manifold.recall,
    )


def measure_floors(pipeline: Model, reference: Reference, chosen: Int[Tensor, "M"], folder: Path) -> Floors:
    """`chosen` are the held-out pictures whose captions are the prompts; `folder` keeps how they are reconstructed."""
    real, labels, names = real_sample(reference), reference.labels, reference.evaluator.vocabulary.names
    originals = reference.held_out.pixels[chosen.numpy()]
    reconstructed = read_reconstructions(pipeline, reference, chosen, folder)
    training = reference.training.pixels[_training_choice(reference, len(chosen)).numpy()]
    reconstructed_training = reference.evaluator.read(reconstruct(pipeline, training))
    return Floors(
        training_reconstructions=frechet_distance(
            Gaussian.fit(reconstructed_training.features), Gaussian.fit(reconstructed.features)
        ),
        halves=distances(*_halves(real)),
        training=distances(_training_sample(reference, len(chosen)), real),
        reconstruction=distances(Sample(reconstructed.features, real.row_of[chosen]), real),
        real_agreement=agreement(reference.held_out_reading.classes[chosen], labels[chosen], names),
        reconstruction_agreement=agreement(reconstructed.classes, labels[chosen], names),
        tokenizer=measure_reconstruction(pipeline.tokenizer, _batches(pipeline, originals[:MAX_MEASURED])),
    )


def _batches(pipeline: Model, pixels: UInt8[np.ndarray, "M Y X 3"]) -> Iterator[Float[Tensor, "B 3 Y X"]]:
    device = next(pipeline.tokenizer.parameters()).device
    for start in range(0, len(pixels), BATCH):
        part = torch.from_numpy(np.array(pixels[start : start + BATCH]))
        yield part.to(device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def real_sample(reference: Reference) -> Sample:
    return Sample(reference.held_out_reading.features, torch.from_numpy(reference.held_out.row_of).long())


def _training_sample(reference: Reference, count: int) -> Sample:
    drawn = _training_choice(reference, count)
    return Sample(reference.training_reading.features[drawn], torch.from_numpy(reference.training.row_of).long()[drawn])


def _training_choice(reference: Reference, count: int) -> Int[Tensor, "count"]:
    return torch.randperm(len(reference.training.pixels), generator=torch.Generator().manual_seed(0))[:count]


def _halves(real: Sample) -> tuple[Sample, Sample]:
    """Two halves that share no label row."""
    rows = real.row_of.unique()
    first_rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[: len(rows) // 2]]
    first = torch.isin(real.row_of, first_rows)
    return Sample(real.features[first], real.row_of[first]), Sample(real.features[~first], real.row_of[~first])
