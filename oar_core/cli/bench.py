"""`oar bench`: speed of the engine in this process."""

import json
from dataclasses import asdict
from pathlib import Path

import click
import torch

from oar_core.answer import Answer
from oar_core.bench import ANY_ORDER, STAGES, measure_batching, measure_training
from oar_core.cli.options import OarGroup, default_device, recipe_option
from oar_core.eval.tables import markdown_table
from oar_core.sampling.pipeline import Pipeline
from oar_core.train.recipes import Recipe
from oar_core.weights import Manifest


@click.group(cls=OarGroup)
def bench() -> None:
    """Measure speed: a table, then one JSON line."""


@bench.command()
@click.option("--weights", type=click.Path(path_type=Path), default=Path("weights"), show_default=True)
@click.option("--model", default=None, help="Default: the manifest's.")
@click.option("--images", "num_images", default=16, show_default=True)
@click.option("--steps", default=None, type=int, help="Default: the model's.")
@click.option("--repeats", default=3, show_default=True)
@click.option("--device", default=None, help="Torch device; CUDA where there is one.")
def batching(
    weights: Path, model: str | None, num_images: int, steps: int | None, repeats: int, device: str | None
) -> Answer:
    """The same pictures one after another and all at once."""
    manifest = Manifest.load(weights)
    folder = manifest.folder(model or manifest.default)
    pipeline = Pipeline.load(folder, device or default_device(), torch.float32)
    report = measure_batching(pipeline, num_images=num_images, steps=steps, repeats=repeats)
    head = f"{report.num_images} pictures, {report.steps} steps"
    rows = (("one by one", report.one_by_one_seconds), ("at once", report.at_once_seconds))
    table = markdown_table(
        (head, "seconds", "pictures/s"),
        [(name, f"{seconds:.3f}", f"{report.num_images / seconds:.2f}") for name, seconds in rows],
    )
    return Answer(asdict(report), (table, json.dumps(asdict(report))))


@bench.command()
@recipe_option
@click.option("--stage", type=click.Choice(STAGES), default=ANY_ORDER, show_default=True)
@click.option("--batch-size", default=32, show_default=True)
@click.option("--steps", default=3, show_default=True)
def training(recipe: Recipe, stage: str, batch_size: int, steps: int) -> Answer:
    """A stage of a recipe on the CPU, on random pictures or tokens."""
    report = measure_training(recipe, stage=stage, batch_size=batch_size, steps=steps)
    table = markdown_table(
        ("recipe", "stage", "tokens", "parameters", "pictures per CPU second", "peak MiB"),
        [(report.recipe, report.stage, str(report.num_tokens), str(report.parameters),
          f"{report.images_per_cpu_second:.1f}", str(report.peak_mib))],
    )  # fmt: skip
    return Answer(asdict(report), (table, json.dumps(asdict(report))))
