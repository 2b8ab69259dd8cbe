# pyright: standard
"""The shared part of the library's commands: errors as sentences, and the options that name a run."""

import json
from pathlib import Path
from typing import Any

import click
import torch

from oar_cli.answer import Answer, AnswerCommand
from oar_cli.flags import with_options
from oar_core.errors import ConfigError, LibraryError
from oar_core.host_memory import keep_freed_memory
from oar_core.models.load import load_model
from oar_core.models.model import Model
from oar_core.train.evaluator import Evaluator
from oar_core.train.recipe import Recipe
from oar_core.train.recipe_file import load_recipe
from oar_core.train.run import Run
from oar_core.train.stage_folders import EVALUATOR_STAGE
from oar_core.weights import Manifest


class OarCommand(AnswerCommand):
    """Turns the library's own errors into one sentence on stderr; anything else is a bug and keeps its trace."""

    def invoke(self, ctx: click.Context) -> Any:
        keep_freed_memory()
        try:
            return super().invoke(ctx)
        except LibraryError as error:
            raise click.ClickException(str(error)) from error


class OarGroup(click.Group):
    """Makes all its commands OarCommands."""

    command_class = OarCommand


class RecipeType(click.ParamType):
    """The name of a recipe, or a TOML file that changes one."""

    name = "name|file.toml"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Recipe:
        if isinstance(value, Recipe):
            return value
        try:
            return load_recipe(value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)


recipe_option = click.option(
    "--recipe",
    type=RecipeType(),
    default="sprites-64",
    show_default=True,
    help="One of `oar train recipes`, or a TOML file that changes one.",
)


data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="Folder of pictures and captions.",
)


def json_answer(document: dict[str, Any]) -> Answer:
    """The same for people and programs: JSON, on one line for people."""
    return Answer(document, [json.dumps(document)])


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


device_option = click.option("--device", default=None, help="Torch device; CUDA where there is one.")
run_options = with_options(
    recipe_option,
    data_option,
    click.option("--run", "folder", type=click.Path(path_type=Path), required=True,
                 help="Folder of checkpoints and curves; an interrupted run goes on from here."),
    device_option,
)  # fmt: skip
weights_option = click.option("--weights", type=click.Path(path_type=Path), default=Path("weights"), show_default=True)
model_option = click.option("--model", default=None, help="Default: the manifest's.")


split_option = click.option("--split", default=None, help="Default: the recipe's held-out split.")

EVALUATORS = Path("weights") / "evaluators"

evaluator_option = click.option(
    "--evaluator",
    "evaluator_folder",
    type=click.Path(path_type=Path),
    help=f"Default: the run's own, or the recipe's in {EVALUATORS}.",
)


def load_evaluator(run: Run, folder: Path | None) -> Evaluator:
    """Raises WeightsError where there is none."""
    own = run.folder / EVALUATOR_STAGE
    usual = own if own.exists() else EVALUATORS / run.recipe.name
    return Evaluator.load(folder or usual, run.device)


def open_model(weights: Path, name: str | None, device: str | None = None, dtype: str = "float32") -> Model:
    """Loads a model of a weights folder, the default one unless named. Raises WeightsError."""
    manifest = Manifest.load(weights)
    return load_model(manifest.folder(name or manifest.default), device or default_device(), getattr(torch, dtype))


def make_run(recipe: Recipe, data: Path, folder: Path, device: str | None) -> Run:
    return Run(recipe, data, folder, torch.device(device or default_device()))
