"""What the library's commands share: errors as sentences, and the options that name a run."""

from pathlib import Path
from typing import Any

import click
import torch

from oar_core.errors import OarError
from oar_core.eval.evaluator import Evaluator
from oar_core.train.recipes import RECIPES, recipe
from oar_core.train.run import EVALUATOR_STAGE, Run


class OarCommand(click.Command):
    """Turns the library's own errors into one sentence on stderr; anything else is a bug and keeps its trace."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OarError as error:
            raise click.ClickException(str(error)) from error


class OarGroup(OarCommand, click.Group):
    """The same for all commands of a group."""


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def run_options(command: Any) -> Any:
    options = [
        click.option("--recipe", "recipe_name", type=click.Choice(sorted(RECIPES)), default="sprites-64"),
        click.option("--data", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True,
                     help="Folder of pictures and captions."),
        click.option("--run", "folder", type=click.Path(path_type=Path), required=True,
                     help="Folder of checkpoints and curves; an interrupted run goes on from here."),
        click.option("--device", default=None, help="Torch device; CUDA where there is one."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


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


def make_run(recipe_name: str, data: Path, folder: Path, device: str | None) -> Run:
    return Run(recipe(recipe_name), data, folder, torch.device(device or default_device()))
