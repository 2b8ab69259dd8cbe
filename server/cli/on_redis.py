"""What the verbs that look after the queue share: a connection to the Redis of this data folder, or of REDIS_URL."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click

from server.cli.options import StartRefused, load_settings
from server.errors import ServerError
from server.jobs.check import RedisAway, RedisRefused, check_redis
from server.jobs.connection import RedisConnection
from server.jobs.embedded import EmbeddedRedisError, redis_url
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
        with redis_url(settings) as url:
            return asyncio.run(connected(url))
    except RedisRefused as error:
        raise StartRefused(str(error)) from error
    except (ServerError, EmbeddedRedisError, RedisAway) as error:
        raise click.ClickException(str(error)) from error
