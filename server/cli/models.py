"""`oar models`."""

import click

from oar_client import Client, OarError
from oar_core.answer import Answer, AnswerCommand
from oar_core.errors import OarError as LibraryError
from oar_core.weights import Manifest
from server.cli.options import load_settings


@click.command(cls=AnswerCommand)
@click.option("--url", envvar="OAR_URL", show_envvar=True, help="A server, whose models are listed instead.")
@click.option("--api-key", envvar="OAR_API_KEY", show_envvar=True, help="For a server that asks for one.")
def models(url: str | None, api_key: str | None) -> Answer:
    """List the models of the manifest, or of a server; the default one is marked."""
    found = _of_server(url, api_key) if url else _of_manifest()
    return Answer(
        [{"name": name, "is_default": is_default, "licence": licence} for name, is_default, licence in found],
        [f"{'*' if is_default else ' '} {name}  {licence}" for name, is_default, licence in found],
    )


def _of_server(url: str, api_key: str | None) -> list[tuple[str, bool, str]]:
    try:
        with Client(url, api_key=api_key) as client:
            return [(entry.id, entry.is_default, entry.licence) for entry in client.models()]
    except OarError as error:
        raise click.ClickException(str(error)) from error


def _of_manifest() -> list[tuple[str, bool, str]]:
    try:
        manifest = Manifest.load(load_settings({}).weights_dir)
    except LibraryError as error:
        raise click.ClickException(str(error)) from error
    return [(entry.name, entry.name == manifest.default, entry.licence) for entry in manifest.entries.values()]
