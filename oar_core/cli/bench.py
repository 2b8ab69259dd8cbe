"""`oar bench`: speed of the engine in this process."""

import json
from dataclasses import asdict
from pathlib import Path

import click
import torch

from oar_core.bench import measure_batching, measure_training
from oar_core.cli.options import OarGroup, default_device
from oar_core.sampling.pipeline import Pipeline
from oar_core.train.recipes import RECIPES, recipe
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
) -> None:
    """The same pictures one after another and all at once."""
    manifest = Manifest.load(weights)
    folder = manifest.folder(model or manifest.default)
    pipeline = Pipeline.load(folder, device or default_device(), torch.float32)
    report = measure_batching(pipeline, num_images=num_images, steps=steps, repeats=repeats)
    click.echo(f"| {report.num_images} pictures, {report.steps} steps | seconds | pictures/s |")
    click.echo("|---|---|---|")
    for name, seconds in (("one by one", report.one_by_one_seconds), ("at once", report.at_once_seconds)):
        click.echo(f"| {name} | {seconds:.3f} | {report.num_images / seconds:.2f} |")
    click.echo(json.dumps(asdict(report)))


@bench.command()
@click.option("--recipe", "recipe_name", type=click.Choice(sorted(RECIPES)), default="sprites-64", show_default=True)
@click.option("--batch-size", default=32, show_default=True)
@click.option("--steps", default=3, show_default=True)
def training(recipe_name: str, batch_size: int, steps: int) -> None:
    """The any-order stage of a recipe on the CPU, on random tokens."""
    report = measure_training(recipe(recipe_name), batch_size=batch_size, steps=steps)
    click.echo("| recipe | tokens | parameters | pictures per CPU second |")
    click.echo("|---|---|---|---|")
    row = (report.recipe, report.num_tokens, report.parameters, f"{report.images_per_cpu_second:.1f}")
    click.echo("| " + " | ".join(map(str, row)) + " |")
    click.echo(json.dumps(asdict(report)))
