"""The shared part of the verbs that look after the queue: a connection to the Redis of a server that runs.

REDIS_URL names it, or the data folder holds it. No server is started.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click

from oar_cli.failure import CommandFailed
from oar_cli.settings_options import StartRefused, load_settings
from oar_wire.error import ServerError
from server.jobs.check import RedisAway, RedisRefused, check_redis
from server.jobs.connection import RedisConnection
from server.jobs.embedded import EmbeddedRedisError, running_redis_url
from server.settings import Settings

T = TypeVar("T")


def on_redis(work: Callable[[RedisConnection, Settings], Awaitable[T]]) -> T:
    """Runs `work`; what goes wrong is one sentence."""
    settings = load_settings({})

    async def connected(url: str) -> T:
        connection = RedisConnection(url, settings.command_timeout)
        try:
            return await work(connection, settings)
        finally:
            await connection.close()

    try:
        if settings.redis_url:
            check_redis(settings.redis_url, settings.command_timeout)
        with running_redis_url(settings) as url:
            return asyncio.run(connected(url))
    except RedisRefused as error:
        raise StartRefused(str(error)) from error
    except EmbeddedRedisError as error:
        raise click.ClickException(f"{error}: {_hint()}") from error
    except (ServerError, RedisAway) as error:
        raise CommandFailed(error) from error


def _hint() -> str:
    """Says how the running verb finds a server: some verbs have no --url."""
    context = click.get_current_context(silent=True)
    by_url = "name one by --url or OAR_URL, or " if context is not None and "url" in context.params else ""
    return f"start one with `oar serve`, or {by_url}name its Redis by REDIS_URL, or its data folder by OAR_DATA_DIR"
