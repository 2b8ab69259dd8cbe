"""The real side of every comparison: held-out and training pictures as the evaluator reads them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from oar_core.stored import digest, fingerprint
from oar_core.tensor_file import load_tensors, save_tensors
from oar_core.train.attributes import Row
from oar_core.train.evaluator import Evaluator, Reading
from oar_lab.eval.distances import nearest_rows
from oar_lab.eval.memorisation import nearest_pixels


class Pictures(Protocol):
    """Labelled pictures: picture i belongs to the label row `rows[row_of[i]]`."""

    @property
    def pixels(self) -> UInt8[np.ndarray, "M Y X 3"]: ...

    @property
    def rows(self) -> Sequence[Row]: ...

    @property
    def row_of(self) -> Int[np.ndarray, "M"]: ...


@dataclass(frozen=True)
class Reference:
    """`feature_distances` and `pixel_distances` are those of the first chosen held-out pictures to the training set."""

    evaluator: Evaluator
    held_out: Pictures
    training: Pictures
    held_out_reading: Reading
    training_reading: Reading
    feature_distances: Float[Tensor, "K"]
    pixel_distances: Float[Tensor, "K"]
    key: str

    @classmethod
    def read(
        cls, evaluator: Evaluator, held_out: Pictures, training: Pictures, cache: Path, *, num_neighbours: int = 1000
    ) -> Self:
        """Computed once for an evaluator and a data set, then read from `cache`."""
        key = digest(evaluator.digest, fingerprint(held_out.pixels), fingerprint(training.pixels), num_neighbours)
        path = cache / f"reference-{key}.safetensors"
        if not path.exists():
            save_tensors(path, _read(evaluator, held_out, training, num_neighbours), {"evaluator": evaluator.name})
        stored, _ = load_tensors(path)
        return cls(
            evaluator,
            held_out,
            training,
            Reading(stored["held_out_features"], stored["held_out_classes"]),
            Reading(stored["training_features"], stored["training_classes"]),
            stored["feature_distances"],
            stored["pixel_distances"],
            key,
        )

    @property
    def labels(self) -> Int[Tensor, "M A"]:
        """Labels of the held-out pictures."""
        by_row = self.evaluator.vocabulary.encode(self.held_out.rows)
        return by_row[torch.from_numpy(self.held_out.row_of).long()]

    @property
    def captions(self) -> list[str]:
        """Captions of the held-out pictures."""
        return [self.held_out.rows[row]["caption"] for row in self.held_out.row_of.tolist()]


def choose_pictures(size: int, count: int) -> Int[Tensor, "count"]:
    """Indices of held-out pictures in a fixed random order, which starts again where a set is too small.

    A longer choice begins with the shorter one.
    """
    rounds = [torch.randperm(size, generator=torch.Generator().manual_seed(turn)) for turn in range(-(-count // size))]
    return torch.cat(rounds)[:count]


def _read(evaluator: Evaluator, held_out: Pictures, training: Pictures, num_neighbours: int) -> dict[str, Tensor]:
    held_out_reading, training_reading = evaluator.read(held_out.pixels), evaluator.read(training.pixels)
    chosen = choose_pictures(len(held_out.pixels), min(num_neighbours, len(held_out.pixels)))
    return {
        "held_out_features": held_out_reading.features,
        "held_out_classes": held_out_reading.classes,
        "training_features": training_reading.features,
        "training_classes": training_reading.classes,
        "feature_distances": nearest_rows(held_out_reading.features[chosen], training_reading.features),
        "pixel_distances": nearest_pixels(held_out.pixels[chosen.numpy()], training.pixels),
    }
