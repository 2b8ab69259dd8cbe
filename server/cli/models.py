"""`oar models`."""

import click

from oar_core.answer import Answer, AnswerCommand
from oar_core.errors import OarError
from oar_core.weights import Manifest
from server.cli.options import load_settings


@click.command(cls=AnswerCommand)
def models() -> Answer:
    """List the models of the manifest; the default one is marked."""
    settings = load_settings({})
    try:
        manifest = Manifest.load(settings.weights_dir)
    except OarError as error:
        raise click.ClickException(str(error)) from error
    default, entries = manifest.default, manifest.entries.values()
    return Answer(
        [{"name": entry.name, "is_default": entry.name == default, "licence": entry.licence} for entry in entries],
        [f"{'*' if entry.name == default else ' '} {entry.name}  {entry.licence}" for entry in entries],
    )
