"""`oar models`."""

import click

from oar_core.errors import OarError
from oar_core.weights import Manifest
from server.cli.options import load_settings


@click.command()
def models() -> None:
    """List the models of the manifest; the default one is marked."""
    settings = load_settings({})
    try:
        manifest = Manifest.load(settings.weights_dir)
    except OarError as error:
        raise click.ClickException(str(error)) from error
    for name, entry in manifest.entries.items():
        click.echo(f"{'*' if name == manifest.default else ' '} {name}  {entry.licence}")
