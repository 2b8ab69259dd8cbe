"""One evaluation of one model under one setting: pictures of held-out captions, measured in every way there is."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from oar_core.digests import module_digest
from oar_core.models.model import Model
from oar_core.stored import cached_json, digest
from oar_core.train.evaluator import Reading
from oar_lab.eval.agreement import agreement, relative
from oar_lab.eval.distances import nearest_rows
from oar_lab.eval.draws import Draws, DrawSettings, draw_pictures, draws_path
from oar_lab.eval.figures import Compared, measure_figures
from oar_lab.eval.floors import Distances, Sample, distances, measure_floors, real_sample
from oar_lab.eval.frechet import Gaussian, frechet_distance
from oar_lab.eval.inception import inception_distance
from oar_lab.eval.likelihood import bits_per_token
from oar_lab.eval.memorisation import closeness, nearest_pixels
from oar_lab.eval.rank_maps import class_rank_maps, mean_rank_map, pairwise_entropy, rank_entropy
from oar_lab.eval.reconstructed import read_reconstructions
from oar_lab.eval.reference import Reference, choose_pictures

FORMAT = 2  # of the report; readers refuse others


@dataclass(frozen=True)
class QualitySettings:
    num_samples: int = 5000
    batch_size: int = 64
    num_likelihood: int = 2000  # held-out pictures whose likelihood is measured
    num_resamples: int = 100  # of the pictures, for intervals; 0.7 s each at 5,000 pictures and one core


@dataclass(frozen=True)
class Quality:
    """`report` is what is stored as JSON; `samples` are the pictures, beside the `real` ones of their captions."""

    report: dict[str, Any]
    samples: UInt8[np.ndarray, "M Y X 3"]
    real: UInt8[np.ndarray, "M Y X 3"]


def measure_quality(
    pipeline: Model, reference: Reference, requested: DrawSettings, settings: QualitySettings, folder: Path
) -> Quality:
    """Measures quality; keeps in `folder` what costs time: tokens drawn, floors, likelihood."""
    chosen, draws = _drawn(pipeline, reference, requested, settings, folder)
    pixels = _decode(pipeline, draws.token_ids, settings.batch_size)
    real = reference.held_out.pixels[chosen.numpy()]
    report = {
        "format": FORMAT,
        "model": {"name": pipeline.name, "hash": pipeline.model_hash},
        "evaluator": {"name": reference.evaluator.name, "digest": reference.evaluator.digest},
        "settings": {
            **requested.to_dict(),
            "num_samples": settings.num_samples,
            "num_likelihood": settings.num_likelihood,
            "dtype": _dtype(pipeline),
        },
        "cost": {**_cost(draws), "batch_size": settings.batch_size, "device": _device(pipeline)},
        **_figures(pipeline, reference, chosen, pixels, settings, folder),
        "bits_per_token": _bits(pipeline, reference, settings, folder),
        "inception_fid": inception_distance(pixels, reference.held_out.pixels),
        "floors": _floors(pipeline, reference, chosen, folder),
        "orders": _orders(pipeline, reference, chosen, draws),
    }
    return Quality(report, pixels, real)


def measure_distances(
    pipeline: Model, reference: Reference, requested: DrawSettings, settings: QualitySettings, folder: Path
) -> Distances:
    """The distances alone, as `measure_quality` finds them: for settings that are tried and left."""
    chosen, draws = _drawn(pipeline, reference, requested, settings, folder)
    reading = reference.evaluator.read(_decode(pipeline, draws.token_ids, settings.batch_size))
    real = real_sample(reference)
    return distances(Sample(reading.features, real.row_of[chosen]), real)


def _drawn(
    pipeline: Model, reference: Reference, requested: DrawSettings, settings: QualitySettings, folder: Path
) -> tuple[Int[Tensor, "M"], Draws]:
    """The held-out pictures that lend their captions, and the pictures drawn from these."""
    chosen = choose_pictures(len(reference.held_out.pixels), settings.num_samples)
    captions = reference.captions
    path = draws_path(folder, pipeline, requested, digest(captions))
    prompts = [captions[index] for index in chosen.tolist()]
    return chosen, draw_pictures(pipeline, prompts, requested, path, batch_size=settings.batch_size)


def _figures(
    pipeline: Model,
    reference: Reference,
    chosen: Int[Tensor, "M"],
    pixels: UInt8[np.ndarray, "M Y X 3"],
    settings: QualitySettings,
    folder: Path,
) -> dict[str, Any]:
    reading = reference.evaluator.read(pixels)
    reconstructed = read_reconstructions(pipeline, reference, chosen, folder)
    floors = _floors(pipeline, reference, chosen, folder)
    reached = agreement(reading.classes, reference.labels[chosen], reference.evaluator.vocabulary.names)
    real = real_sample(reference)
    compared = Compared(pipeline, reference, chosen, pixels, reading.features, folder)
    return {
        "figures": measure_figures(compared, settings.num_resamples),
        "distances": asdict(distances(Sample(reading.features, real.row_of[chosen]), real)),
        "fd_to_reconstructions": frechet_distance(Gaussian.fit(reading.features), Gaussian.fit(reconstructed.features)),
        "agreement": reached,
        "relative_agreement": relative(reached, floors["real_agreement"]),
        "memorisation": _memorisation(reference, reading, pixels),
    }


def _memorisation(reference: Reference, reading: Reading, pixels: UInt8[np.ndarray, "M Y X 3"]) -> dict[str, Any]:
    """Compares as many generated pictures as the reference has held-out distances."""
    count = len(reference.feature_distances)
    features = nearest_rows(reading.features[:count], reference.training_reading.features)
    return {
        "features": asdict(closeness(features, reference.feature_distances)),
        "pixels": asdict(
            closeness(nearest_pixels(pixels[:count], reference.training.pixels), reference.pixel_distances)
        ),
    }


def _floors(pipeline: Model, reference: Reference, chosen: Int[Tensor, "M"], folder: Path) -> dict[str, Any]:
    """Shared by all models with the same tokenizer."""
    key = digest(FORMAT, reference.key, module_digest(pipeline.tokenizer), len(chosen))
    return cached_json(
        folder / f"floors-{key}.json", lambda: asdict(measure_floors(pipeline, reference, chosen, folder))
    )


def _bits(pipeline: Model, reference: Reference, settings: QualitySettings, folder: Path) -> float:
    """Bits of held-out pictures with their captions, along random orders; the same for all ways of sampling."""
    count = min(settings.num_likelihood, len(reference.held_out.pixels))
    key = digest(FORMAT, pipeline.model_hash, reference.key, count, _dtype(pipeline))

    def compute() -> float:
        chosen = choose_pictures(len(reference.held_out.pixels), count)
        captions = reference.captions
        conditions = pipeline.conditioner.encode_captions(
            [captions[index] for index in chosen.tolist()], max_length=pipeline.backbone.spec.max_condition
        )
        parts = [pipeline.encode(reference.held_out.pixels[part.numpy()]) for part in chosen.split(settings.batch_size)]
        return bits_per_token(pipeline.backbone, torch.cat(parts).cpu(), conditions)

    return cached_json(folder / f"likelihood-{key}.json", compute)


def _orders(pipeline: Model, reference: Reference, chosen: Int[Tensor, "M"], draws: Draws) -> dict[str, Any]:
    vocabulary, labels = reference.evaluator.vocabulary, reference.labels[chosen]
    by_class = {
        f"{name}={value}": _rounded(rank_map)
        for column, (name, classes) in enumerate(vocabulary.classes.items())
        for value, rank_map in class_rank_maps(draws.ranks, labels[:, column], classes, pipeline.grid).items()
    }
    return {
        "rank_entropy": rank_entropy(draws.ranks),
        "pairwise_entropy": pairwise_entropy(draws.ranks),
        "rank_map": _rounded(mean_rank_map(draws.ranks, pipeline.grid)),
        "rank_maps": by_class,
    }


def _cost(draws: Draws) -> dict[str, float]:
    seconds = draws.seconds.double().sum().item()
    return {
        "seconds": seconds,
        "pictures_per_second": len(draws) / seconds,
        "mean_steps": draws.steps.double().mean().item(),
        "query_evaluations": draws.query_evaluations.double().mean().item(),
        "policy_evaluations": draws.policy_evaluations.double().mean().item(),
    }


def _device(pipeline: Model) -> str:
    return next(pipeline.backbone.parameters()).device.type


def _dtype(pipeline: Model) -> str:
    return str(pipeline.dtype).removeprefix("torch.")


def _decode(pipeline: Model, token_ids: Int[Tensor, "M L"], batch_size: int) -> UInt8[np.ndarray, "M Y X 3"]:
    """Decodes in the number format of the backbone: bf16 takes half of the time, and grey levels move by a fraction of
    one."""
    with torch.autocast(_device(pipeline), torch.bfloat16, enabled=_dtype(pipeline) == "bfloat16"):
        return _decode_all(pipeline, token_ids, batch_size)


def _decode_all(pipeline: Model, token_ids: Int[Tensor, "M L"], batch_size: int) -> UInt8[np.ndarray, "M Y X 3"]:
    return np.concatenate([pipeline.decode(part.long()) for part in token_ids.split(batch_size)])


def _rounded(values: Tensor) -> list[list[float]]:
    return [[round(value, 4) for value in row] for row in values.tolist()]
