"""The `oar` command. Each verb is imported when it is called: `oar api` never imports torch."""

import importlib
import sys
from typing import cast

import click
from click.shell_completion import CompletionItem

from oar_wire.version import VERSION

# verb -> (module, attribute, help). The library's verbs are found in its own table of commands.
LIBRARY = "oar_cli.lab"
VERBS = {
    "serve": ("oar_cli.serve", "serve", "Run everything: Redis, API and workers."),
    "api": ("oar_cli.api", "api", "Run an API process."),
    "worker": ("oar_cli.worker", "worker_command", "Run a worker process."),
    "top": ("oar_cli.top", "top", "Watch queue and workers."),
    "generate": ("oar_cli.generate", "generate_command", "Make pictures, in this process or on a server."),
    "edit": ("oar_cli.edit", "edit_command", "Paint a part of a picture anew."),
    "jobs": ("oar_cli.jobs", "jobs_group", "See what waits, runs and failed; cancel and repeat."),
    "results": ("oar_cli.results", "results_group", "Export finished pictures."),
    "keys": ("oar_cli.keys", "keys", "Make, hash, list and check API keys."),
    "import": ("oar_cli.importing", "import_checkpoint", "Make a model of a published checkpoint."),
    "models": ("oar_cli.models", "models_group", "List, pull, remove and forget models."),
    "completion": ("oar_cli.completion", "completion", "Print what a shell needs to complete `oar`."),
    "train": (LIBRARY, "train", "Train a model, stage by stage."),
    "distill": (LIBRARY, "distill", "Find the orders in which a model is most certain."),
    "eval": (LIBRARY, "eval", "Measure a model."),
    "study": (LIBRARY, "study", "Compare orders of generation."),
    "bench": ("oar_cli.bench_server", "bench", "Measure the speed of the engine, or of a server."),
}


class LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in VERBS:
            return None
        module_name, attribute, _ = VERBS[cmd_name]
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            raise click.ClickException(
                f"`oar {cmd_name}` needs {error.name}: pip install 'oar-server[worker]'"
            ) from error
        if module_name == LIBRARY:
            return cast("dict[str, click.Command]", module.commands)[attribute]
        return cast(click.Command, getattr(module, attribute))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The verbs from the table: to load them all, as click would, takes seconds."""
        verbs = [CompletionItem(name, help=text) for name, (_, _, text) in VERBS.items() if name.startswith(incomplete)]
        return [*verbs, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in VERBS.items()])


@click.group(cls=LazyGroup)
@click.version_option(VERSION, message="%(version)s")
def main() -> None:
    """Order-aware autoregressive image generation: serve, generate, train, measure."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")  # a terminal that has no such letter shows another
