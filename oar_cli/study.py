"""`oar study`: the comparison of orders, trained, measured and told."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch

from oar_cli.answer import Answer
from oar_cli.flags import with_options
from oar_cli.lab_options import OarGroup, evaluator_option, load_evaluator, make_run, run_options
from oar_core.errors import ConfigError
from oar_core.train.model_export import ModelExport
from oar_core.train.run import Run
from oar_core.train.run_data import CACHE, load_pictures
from oar_lab.eval.painting import write_animation
from oar_lab.eval.reference import Reference
from oar_lab.study.report import write_study_report
from oar_lab.study.study import Study
from oar_lab.study.study_arms import STUDY_ARMS
from oar_lab.study.tuning import StudyConfig

_DEFAULTS = StudyConfig()
_STEPS = [str(count or 0) for count in _DEFAULTS.steps]


@click.group(cls=OarGroup)
def study() -> None:
    """Compare orders of generation: arms of equal compute, trained and measured alike."""


_study_options = with_options(
    run_options,
    click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the JSON files."),
    click.option("--arm", "labels", multiple=True, type=click.Choice([arm.label for arm in STUDY_ARMS]),
                 help="May be repeated. Default: all."),
    click.option("--seeds", "num_seeds", type=click.IntRange(min=1), default=_DEFAULTS.num_seeds,
                 show_default=True, help="Of the arms that carry the claim."),
    click.option("--samples", "num_samples", type=click.IntRange(min=8), default=_DEFAULTS.num_samples,
                 show_default=True, help="Pictures a figure."),
    click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default=_DEFAULTS.dtype, show_default=True,
                 help="Of the weights that draw."),
    click.option("--finetune-images", type=click.IntRange(min=1), help="Default: the recipe's."),
)  # fmt: skip


def _make_study(
    out: Path,
    labels: tuple[str, ...],
    num_seeds: int,
    num_samples: int,
    dtype: str,
    finetune_images: int | None,
    **options: Any,
) -> Study:
    run = make_run(**options)
    if finetune_images is not None:
        loop = replace(run.recipe.order_finetune_loop, num_images=finetune_images)
        run = replace(run, recipe=replace(run.recipe, order_finetune_loop=loop))
    arms = tuple(arm for arm in STUDY_ARMS if not labels or arm.label in labels)
    return Study(run, StudyConfig(num_samples=num_samples, num_seeds=num_seeds, dtype=dtype), out, arms)


@study.command("train")
@_study_options
def train_(**options: Any) -> Answer:
    """Train the arms, from the run's any-order backbone and distilled orders."""
    study_ = _make_study(**options)
    study_.train()
    return Answer({"run": str(study_.run.folder), "arms": [arm.label for arm in study_.arms]})


@study.command()
@_study_options
@evaluator_option
@click.option(
    "--steps",
    multiple=True,
    type=click.Choice(_STEPS),
    help="Only these; 0 is one position a step. May be repeated. Default: all, adaptive groups too.",
)
def measure(evaluator_folder: Path | None, steps: tuple[str, ...], **options: Any) -> Answer:
    """Measure every arm that is trained; several processes may do so side by side."""
    study_ = _make_study(**options)
    only = [int(count) or None for count in steps] or None
    written: list[str] = []
    for path in study_.measure(_reference(study_.run, evaluator_folder), only):
        click.echo(path, err=True)
        written.append(str(path))
    missing = [figure.name for figure in study_.missing()]
    click.echo(f"{len(missing)} figures are missing", err=True)
    return Answer({"written": written, "missing": missing}, written)


@study.command("likelihood")
@_study_options
@click.option("--images", "num_images", type=click.IntRange(min=1), default=2000, show_default=True)
def study_likelihood(num_images: int, **options: Any) -> Answer:
    """Bits per token of held-out pictures along each trained arm's own order: no picture is drawn."""
    written = [str(path) for path in _make_study(**options).measure_likelihood(num_images)]
    return Answer({"written": written}, written)


@study.command("animation")
@_study_options
@click.option("--prompt", "prompts", multiple=True, help="May be repeated. Default: the recipe's examples.")
@click.option("--steps", default=16, show_default=True)
@click.option("--draw-seed", default=7, show_default=True)
@click.option("--file", "path", type=click.Path(path_type=Path), required=True, help="Animated WebP.")
def study_animation(prompts: tuple[str, ...], steps: int, draw_seed: int, path: Path, **options: Any) -> Answer:
    """The arms that are trained, painting the same prompts side by side, one row an arm."""
    study_ = _make_study(**options)
    paintings = study_.paintings(prompts or study_.run.recipe.example_prompts, steps, draw_seed)
    if not paintings:
        raise ConfigError("none of these arms is trained")
    write_animation(ModelExport(study_.run).pipeline(study_.run.latest_stage, torch.float32), paintings, path)
    return Answer({"file": str(path), "arms": list(paintings)}, [str(path)])


@study.command("report")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Markdown; pictures go beside it.")
def study_report(folder: Path, out: Path) -> Answer:
    """Tables, plots and maps from what was measured, of each data set in FOLDER, and from nothing else."""
    notes = write_study_report(folder, out)
    for note in notes:
        click.echo(note, err=True)
    return Answer({"out": str(out), "notes": notes}, [str(out)])


def _reference(run: Run, evaluator_folder: Path | None) -> Reference:
    return Reference.read(
        load_evaluator(run, evaluator_folder),
        load_pictures(run, run.recipe.held_out),
        load_pictures(run, "train"),
        run.folder / CACHE,
    )
