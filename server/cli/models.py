"""`oar models`: what the manifest has, and what the queue still knows of models that nobody serves."""

from typing import Any

import click

from oar_core.answer import Answer, AnswerCommand, AnswerGroup
from oar_core.errors import OarError
from oar_core.weights import Manifest
from server.cli.on_redis import on_redis
from server.cli.options import StartRefused, load_settings
from server.errors import ServerError
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


@click.group(cls=_ListsByDefault)
def models() -> None:
    """List the models of the manifest; forget one that nobody serves any more."""


@models.command("list", cls=AnswerCommand)
def list_models() -> Answer:
    """List the models of the manifest; the default one is marked."""
    settings = load_settings({})
    try:
        manifest = Manifest.load(settings.weights_dir)
    except OarError as error:
        raise StartRefused(str(error)) from error
    default, entries = manifest.default, manifest.entries.values()
    return Answer(
        [{"name": entry.name, "is_default": entry.name == default, "licence": entry.licence} for entry in entries],
        [f"{'*' if entry.name == default else ' '} {entry.name}  {entry.licence}" for entry in entries],
    )


@models.command(cls=AnswerCommand)
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
    if workers := Fleet.of(name, await registry.workers()).workers:
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
