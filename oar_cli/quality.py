# pyright: standard
"""`oar eval quality`, `oar eval evaluator` and `oar eval report`: samples measured, and the measurements told."""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import click
import torch

from oar_cli.answer import Answer
from oar_cli.flags import flag, name_or_sizes
from oar_cli.lab_options import (
    OarCommand,
    evaluator_option,
    json_answer,
    load_evaluator,
    make_run,
    model_option,
    open_model,
    run_options,
    split_option,
    weights_option,
)
from oar_core.models.model import Model
from oar_core.order.plan import ORDERS
from oar_core.sampling.defaults import default_plan, default_sampling
from oar_core.sampling.sampler import SamplingParams
from oar_core.stored import digest, write_json
from oar_core.train.recipe import Recipe
from oar_core.train.run_data import CACHE, load_pictures
from oar_lab.eval.agreement import agreement
from oar_lab.eval.arms import load_reports
from oar_lab.eval.draws import DrawSettings
from oar_lab.eval.quality import Quality, QualitySettings, measure_quality
from oar_lab.eval.reference import Reference
from oar_lab.eval.report import write_report
from oar_lab.eval.sheet import side_by_side
from oar_lab.eval.tables import one_line_tables
from oar_wire.options import OPTIONS, plan_options, take

SHEET_PICTURES = 64
_DEFAULTS = QualitySettings()


@click.command("evaluator", cls=OarCommand)
@run_options
@evaluator_option
@split_option
def measure_evaluator(evaluator_folder: Path | None, split: str | None, **options: Any) -> Answer:
    """Accuracy of the evaluation network on held-out pictures, per attribute."""
    run = make_run(**options)
    network, images = load_evaluator(run, evaluator_folder), load_pictures(run, split or run.recipe.held_out)
    labels = network.vocabulary.encode(images.rows)[torch.from_numpy(images.row_of).long()]
    shares = agreement(network.read(images.pixels).classes, labels, network.vocabulary.names)
    return json_answer({"num_images": len(images), "evaluator": network.digest, "accuracy": shares})


SAMPLING = [item.name for item in fields(SamplingParams)]

# The names that this library has, and what an evaluation may repeat.
_CHANGES: dict[str, dict[str, Any]] = {
    "order": {"type": click.Choice(ORDERS)},
    "group_sizes": {"type": name_or_sizes, "metavar": "SIZES"},
    "steps": {"multiple": True},
    "guidance": {"multiple": True},
}


def _drawing_flags(command: Callable[..., Answer]) -> Callable[..., Answer]:
    """Adds a flag for every option that a plan or the sampler has."""
    for name in reversed((*plan_options(), *SAMPLING)):
        changes = _CHANGES.get(name, {})
        repeated = " May be repeated." if "multiple" in changes else ""
        text = f"{OPTIONS[name].about.sentence}.{repeated} Default: the model's."
        command = flag(OPTIONS[name], **changes, help=text)(command)
    return command


@click.command(cls=OarCommand)
@run_options
@evaluator_option
@split_option
@weights_option
@model_option
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "int8"]), default="float32", show_default=True)
@click.option("--samples", "num_samples", type=click.IntRange(min=8), default=_DEFAULTS.num_samples, show_default=True)
@click.option("--batch", "batch_size", type=click.IntRange(min=1), default=_DEFAULTS.batch_size, show_default=True)
@click.option("--resamples", "num_resamples", type=click.IntRange(min=0), default=_DEFAULTS.num_resamples,
              show_default=True, help="Of the pictures, for intervals.")  # fmt: skip
@_drawing_flags
@click.option("--seed", "seeds", type=int, multiple=True, default=(0,), show_default=True, help="May be repeated.")
@click.option("--label", default=None, help="The arm's name in tables. Default: the model's name and the order.")
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Folder. Default: <run>/quality.")
def quality(
    evaluator_folder: Path | None,
    split: str | None,
    weights: Path,
    model: str | None,
    dtype: str,
    num_samples: int,
    batch_size: int,
    num_resamples: int,
    label: str | None,
    out: Path | None,
    recipe: Recipe,
    data: Path,
    folder: Path,
    device: str | None,
    **given: Any,
) -> Answer:
    """Distances, precision, recall, prompt agreement, copying and cost of pictures of held-out captions.

    One JSON file and one contact sheet for each combination of steps, guidance and seed; interrupted work goes on.
    """
    run = make_run(recipe, data, folder, device)
    pipeline = open_model(weights, model, str(run.device), dtype)
    split = split or run.recipe.held_out
    reference = Reference.read(
        load_evaluator(run, evaluator_folder), load_pictures(run, split), load_pictures(run, "train"), folder / CACHE
    )
    settings = QualitySettings(num_samples=num_samples, batch_size=batch_size, num_resamples=num_resamples)
    written: list[dict[str, Any]] = []
    for requested in requested_settings(pipeline, **given):
        result = measure_quality(pipeline, reference, requested, settings, folder / "samples")
        name = label or f"{pipeline.name}, {requested.plan.order}"
        report = {"label": name, "recipe": run.recipe.name, "split": split, **result.report}
        path = _write(out or folder / "quality", report, result)
        written.append(report)
        click.echo(path, err=True)
    reports = [_short(report) for report in written]
    return Answer(reports, (one_line_tables(written), *map(json.dumps, reports)))


def _short(report: dict[str, Any]) -> dict[str, Any]:
    """Without what only tables and plots are made of."""
    figures = {key: value for key, value in report["figures"].items() if key != "resamples"}
    return {key: value for key, value in report.items() if key != "orders"} | {"figures": figures}


def requested_settings(
    pipeline: Model, *, steps: tuple[int, ...], guidance: tuple[float, ...], seeds: tuple[int, ...], **changes: Any
) -> list[DrawSettings]:
    """Every combination of steps, guidance and seed; what is not said is the model's default."""
    sampling = replace(default_sampling(pipeline), **take(changes, SAMPLING))
    return [
        DrawSettings(default_plan(pipeline, **changes, steps=count), replace(sampling, guidance=scale), seed)
        for count, scale, seed in product(steps or (None,), guidance or (sampling.guidance,), seeds)
    ]


@click.command("report", cls=OarCommand)
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Markdown; pictures go beside it.")
def quality_report(folder: Path, out: Path) -> Answer:
    """Tables and plots from the JSON files that `oar eval quality` left in FOLDER, and from nothing else."""
    notes = write_report(load_reports(folder), out)
    for note in notes:
        click.echo(note, err=True)
    return Answer({"out": str(out), "notes": notes}, [str(out)])


def _write(folder: Path, report: dict[str, Any], result: Quality) -> Path:
    """The file's name is a hash of what was measured, so the same evaluation replaces itself."""
    keys = ("label", "recipe", "split", "model", "evaluator", "settings")
    path = folder / f"{digest([report[key] for key in keys])}.json"
    write_json(path, report)
    pair = result.samples[:SHEET_PICTURES], result.real[:SHEET_PICTURES]
    side_by_side(*pair).save(path.with_suffix(".png"), optimize=True)
    return path
