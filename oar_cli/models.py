"""`oar models`: what the manifest has, and what the queue still knows of models that nobody serves."""

from typing import Any

import click

from oar_cli.answer import Answer, AnswerCommand, AnswerGroup
from oar_cli.failure import CommandFailed
from oar_cli.on_redis import on_redis
from oar_cli.settings_options import StartRefused, load_settings
from oar_client import Client, OarError
from oar_core.errors import LibraryError
from oar_core.weights import Manifest, remove_model
from oar_wire.error import ServerError
from server.jobs.connection import RedisConnection
from server.jobs.estimate import Fleet
from server.jobs.queue import JobQueue
from server.jobs.store import Registry
from server.settings import Settings


class _ListsByDefault(AnswerGroup):
    """`oar models` alone lists, with `--json` too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        is_listing = not args or (args[0] not in self.commands and args[0] not in ("--help", "-h"))
        return super().parse_args(ctx, ["list", *args] if is_listing else args)


@click.group("models", cls=_ListsByDefault)
def models_group() -> None:
    """List the models of the manifest or of a server; get files of models, remove one, forget one."""


@models_group.command("list", cls=AnswerCommand)
@click.option("--url", envvar="OAR_URL", show_envvar=True, help="A server, whose models are listed instead.")
@click.option("--api-key", envvar="OAR_API_KEY", show_envvar=True, help="For a server that asks for one.")
def list_known_models(url: str | None, api_key: str | None) -> Answer:
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
        raise CommandFailed(error) from error


def _of_manifest() -> list[tuple[str, bool, str]]:
    try:
        manifest = Manifest.load(load_settings({}).weights_dir)
    except LibraryError as error:
        raise StartRefused(str(error)) from error
    return [(entry.name, entry.name == manifest.default, entry.licence) for entry in manifest.entries.values()]


@models_group.command(cls=AnswerCommand)
@click.argument("sources", metavar="hf:OWNER/REPO/FILE", nargs=-1, required=True)
def pull(sources: tuple[str, ...]) -> Answer:
    """Download files of the Hugging Face Hub, so that `oar import` finds them here later.

    They go to the cache that HF_HOME names. What was cut off goes on where it stopped.
    """
    from oar_core.importing.source import HUB, fetch

    try:
        wrong = next((source for source in sources if not source.startswith(HUB)), None)
        if wrong is not None:
            raise click.UsageError(f"{wrong!r} is no file of the Hub; it is written {HUB}OWNER/REPO/FILE")
        files = [fetch(source) for source in sources]
    except LibraryError as error:
        raise click.ClickException(str(error)) from error
    return Answer(
        [{"source": file.origin, "path": str(file.path), "bytes": file.path.stat().st_size} for file in files],
        [f"{file.origin}  {file.path}" for file in files],
    )


@models_group.command(cls=AnswerCommand)
@click.argument("name")
def rm(name: str) -> Answer:
    """Delete a model's folder, and take it off the manifest. A server that has loaded it keeps it until it restarts."""
    weights_dir = load_settings({}).weights_dir
    try:
        remove_model(weights_dir, name)
    except LibraryError as error:
        raise click.ClickException(str(error)) from error
    return Answer({"name": name, "folder": str(weights_dir / name)}, [f"{name} is removed from {weights_dir}"])


@models_group.command(cls=AnswerCommand)
@click.argument("name")
@click.option("--cancel-jobs", is_flag=True, help="Cancel the jobs that wait for it.")
def forget(name: str, cancel_jobs: bool) -> Answer:
    """Take a model that no worker serves off the list, before it expires by itself.

    Refused while a worker serves it, and while jobs wait for it, unless these are to be canceled.
    """
    facts = on_redis(lambda connection, settings: _forget(connection, settings, name, cancel_jobs=cancel_jobs))
    return Answer(facts, [f"{name} is forgotten; jobs canceled: {facts['canceled']}"])


async def _forget(connection: RedisConnection, settings: Settings, name: str, *, cancel_jobs: bool) -> dict[str, Any]:
    registry, queue = Registry(connection), JobQueue(connection, settings)
    if name not in await registry.served_models():
        raise click.ClickException(f"there is no model {name!r}")
    if workers := Fleet.of(name, await registry.workers.alive()).workers:
        raise click.ClickException(f"{len(workers)} workers serve {name}; stop them first")
    active = await queue.active(name)
    if active and not cancel_jobs:
        raise click.ClickException(f"{len(active)} jobs wait for {name}; `--cancel-jobs` cancels them")
    for job_id in active:
        try:
            await queue.cancel(await queue.load(job_id))
        except ServerError as error:
            click.echo(f"{job_id}: {error}", err=True)
    if left := await queue.active(name):
        raise click.ClickException(f"{len(left)} jobs of {name} were begun, and end when their leases have; try again")
    await registry.forget_model(name)
    return {"name": name, "canceled": len(active)}
