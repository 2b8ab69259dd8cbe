"""`oar bench`: speed of the engine in this process."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch

from oar_cli.answer import Answer
from oar_cli.flags import with_options
from oar_cli.lab_options import (
    OarGroup,
    RecipeType,
    default_device,
    device_option,
    model_option,
    recipe_option,
    weights_option,
)
from oar_core.train.recipe import Recipe
from oar_lab.bench.arrivals import measure_arrivals
from oar_lab.bench.batching import measure_batching
from oar_lab.bench.choices import measure_choices
from oar_lab.bench.decoders import decoders as decoders_of
from oar_lab.bench.decoders import measure_decoders
from oar_lab.bench.depth import measure_depth
from oar_lab.bench.eager import measure_eager
from oar_lab.bench.families import measure_families
from oar_lab.bench.roofline import measure_roofline
from oar_lab.bench.sized import KEYS, SIZES, sized_network
from oar_lab.bench.steps import measure_steps
from oar_lab.bench.subject import Subject
from oar_lab.bench.table import BenchReport
from oar_lab.bench.throughput import measure_throughput
from oar_lab.bench.training import ANY_ORDER, STAGES, measure_training

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}


def tell(report: BenchReport) -> Answer:
    return Answer(report.to_dict(), (report.table(), json.dumps(report.to_dict())))


@click.group(cls=OarGroup)
def bench() -> None:
    """Measure speed: a table, then one JSON line."""


bench_model_options = with_options(
    weights_option,
    model_option,
    device_option,
    click.option("--dtype", type=click.Choice(sorted(DTYPES)), default="float32", show_default=True),
    click.option("--threads", default=0, help="Threads of torch; 0 leaves torch's choice."),
)
subject_options = with_options(
    bench_model_options,
    click.option("--recipe", type=RecipeType(), help="Random weights instead of a model: a name or a TOML file."),
    click.option("--compile", "is_compiled", is_flag=True, help="The draw compiled, as OAR_COMPILE does."),
)
_repeats = click.option("--repeats", default=3, show_default=True)
_batch = click.option("--batch", default=16, show_default=True)


def load_subject(
    weights: Path,
    model: str | None,
    recipe: Recipe | None,
    device: str | None,
    dtype: str,
    threads: int,
    is_compiled: bool = False,
) -> Subject:
    if threads:
        torch.set_num_threads(threads)
    device = device or default_device()
    if recipe is not None:
        subject = Subject.of_recipe(recipe, device, DTYPES[dtype])
    else:
        subject = Subject.of_model(weights, model, device, DTYPES[dtype])
    return replace(subject, is_compiled=is_compiled)


@bench.command()
@subject_options
@click.option("--images", "num_images", default=16, show_default=True)
@click.option("--steps", default=None, type=int, help="Default: the model's.")
@_repeats
def batching(num_images: int, steps: int | None, repeats: int, **where: Any) -> Answer:
    """The same pictures one after another and all at once."""
    return tell(measure_batching(load_subject(**where), num_images=num_images, steps=steps, repeats=repeats))


@bench.command()
@subject_options
@_batch
@click.option("--steps", default=None, type=int, help="Default: the model's.")
@_repeats
def eager(batch: int, steps: int | None, repeats: int, dtype: str, **where: Any) -> Answer:
    """The engine in --dtype, and in fp32, against the plain loop in fp32."""
    subjects = [load_subject(dtype=name, **where) for name in dict.fromkeys(("float32", dtype))]
    return tell(measure_eager(subjects, batch=batch, steps=steps, repeats=repeats))


@bench.command()
@subject_options
@click.option("--batch", default=16, show_default=True, help="Guided pictures at once.")
@click.option("--steps", default=None, type=int, help="Default: the model's.")
@click.option("--repeats", default=5, show_default=True)
@click.option("--step-alone", "is_step_alone", is_flag=True, help="Without prefill, decoder and files.")
def roofline(batch: int, steps: int | None, repeats: int, is_step_alone: bool, **where: Any) -> Answer:
    """Measure how far each part of a picture is from what this machine allows."""
    subject = load_subject(**where)
    return tell(measure_roofline(subject, batch=batch, steps=steps, repeats=repeats, is_step_alone=is_step_alone))


@bench.command()
@subject_options
@click.option("--batch", "batches", type=int, multiple=True, default=(1, 4, 16, 64, 256), show_default=True)
@click.option("--steps", default=None, type=int, help="Default: the model's.")
@_repeats
def throughput(batches: tuple[int, ...], steps: int | None, repeats: int, **where: Any) -> Answer:
    """Pictures a second by batch size; one at once is the latency of one."""
    return tell(measure_throughput(load_subject(**where), batches=batches, steps=steps, repeats=repeats))


@bench.command()
@subject_options
@click.option("--slots", default=32, show_default=True, help="Cache slots; a guided picture takes two.")
@click.option("--images", "num_images", default=120, show_default=True)
@click.option("--load", "loads", type=float, multiple=True, default=(0.5, 0.8), show_default=True)
@click.option(
    "--bound",
    "bounds",
    type=float,
    multiple=True,
    default=(1.5, 2.0, 3.0),
    show_default=True,
    help="How often the longest picture's time alone a picture may take.",
)
@click.option("--seconds", default=12.0, show_default=True, help="Of the engine's clock, at each rate that is tried.")
def arrivals(
    slots: int, num_images: int, loads: tuple[float, ...], bounds: tuple[float, ...], seconds: float, **where: Any
) -> Answer:
    """Static against continuous batching under Poisson arrivals, and the highest rate that each keeps up with."""
    return tell(
        measure_arrivals(
            load_subject(**where), slots=slots, num_images=num_images, loads=loads, bounds=bounds, seconds=seconds
        )
    )


@bench.command()
@subject_options
@_batch
@_repeats
def steps(batch: int, repeats: int, **where: Any) -> Answer:
    """A quarter of the steps against all, a fixed order against scoring every position."""
    return tell(measure_steps(load_subject(**where), batch=batch, repeats=repeats))


@bench.command()
@subject_options
@click.option("--slots", default=16, show_default=True)
@click.option("--waiting", "depths", type=int, multiple=True, default=(0, 100, 1000), show_default=True)
def depth(slots: int, depths: tuple[int, ...], **where: Any) -> Answer:
    """A step's time while pictures wait."""
    return tell(measure_depth(load_subject(**where), slots=slots, depths=depths))


sized = with_options(
    click.option("--family", "families", type=click.Choice(KEYS), multiple=True, help="May be repeated. Default: all."),
    click.option("--size", type=click.Choice(SIZES), default="tiny", show_default=True, help="As papers call them."),
    click.option("--layers", type=click.IntRange(1), default=None, help="As many in place of all, which are alike."),
    click.option("--threads", default=1, show_default=True, help="Threads of torch."),
)


@bench.command()
@sized
@click.option("--batch", "batches", type=int, multiple=True, default=(1, 8), show_default=True)
@_repeats
@click.option("--steps", type=click.IntRange(1), default=None, help="Default: those of each family's card.")
@click.option("--native/--no-native", default=True, show_default=True, help="Whether the native network is beside.")
@click.option(
    "--calibrations", type=click.Path(path_type=Path), default=None, help="Folder in which choices of kernels are kept."
)
def families(
    families: tuple[str, ...],
    size: str,
    layers: int | None,
    threads: int,
    batches: tuple[int, ...],
    repeats: int,
    steps: int | None,
    native: bool,
    calibrations: Path | None,
) -> Answer:
    """Families of published models with random weights: the engine, and the native one, against a plain loop."""
    torch.set_num_threads(threads)
    return tell(
        measure_families(
            families or KEYS,
            size=size,
            batches=batches,
            repeats=repeats,
            layers=layers,
            steps=steps,
            has_native=native,
            folder=calibrations,
        )
    )


@bench.command()
@sized
@click.option("--starts", default=20, show_default=True, help="How often it is chosen.")
def choices(families: tuple[str, ...], size: str, layers: int | None, threads: int, starts: int) -> Answer:
    """Show what `OAR_DTYPE=fastest` would choose at so many starts, were nothing kept."""
    torch.set_num_threads(threads)
    networks = {key: sized_network(key, size, layers).backbone for key in families or KEYS}
    return tell(measure_choices(networks, starts=starts))


@bench.command()
@click.option(
    "--weights",
    envvar="OAR_WEIGHTS_DIR",
    default=Path("weights"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder with a manifest.",
)
def decoders(weights: Path) -> Answer:
    """Measure what decoding in bfloat16 gains, and how much it changes pictures."""
    return tell(measure_decoders(decoders_of(weights)))


@bench.command()
@recipe_option
@click.option("--stage", type=click.Choice(STAGES), default=ANY_ORDER, show_default=True)
@click.option("--batch-size", default=32, show_default=True)
@click.option("--steps", default=3, show_default=True)
def training(recipe: Recipe, stage: str, batch_size: int, steps: int) -> Answer:
    """A stage of a recipe on the CPU, on random pictures or tokens."""
    return tell(measure_training(recipe, stage=stage, batch_size=batch_size, steps=steps))
