"""The worker process: loads models, serves jobs, stops within a bound on SIGTERM or SIGINT."""

import asyncio
import logging
import signal
from collections.abc import Callable

from prometheus_client import start_http_server

from server.jobs.connection import RedisConnection
from server.jobs.embedded import redis_url
from server.settings import Settings
from server.worker.bridge import Bridge
from server.worker.identity import Identity
from server.worker.models import LoadedModel, load_models

logger = logging.getLogger(__name__)


def run_worker(settings: Settings, on_ready: Callable[[], None] = lambda: None) -> None:
    """Returns after a signal; calls `on_ready` when it takes jobs.

    Raises WeightsError, EmbeddedRedisError, WorkerCrashed.
    """
    identity = Identity(settings.data_dir)
    try:
        models = load_models(settings)
        with redis_url(settings) as url:
            asyncio.run(_serve(settings, url, identity.name, models, on_ready))
    finally:
        identity.close()


async def _serve(
    settings: Settings, url: str, name: str, models: list[LoadedModel], on_ready: Callable[[], None]
) -> None:
    connection = RedisConnection(url, settings.command_timeout)
    try:
        bridge = Bridge(settings, connection, name, models)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, bridge.stop)
        if settings.worker_metrics_port:
            start_http_server(settings.worker_metrics_port, registry=bridge.metrics.registry)
        logger.info("worker ready name=%s models=%s", name, ",".join(model.name for model in models))
        await bridge.run(on_ready)
    finally:
        await connection.close()
    logger.info("worker stopped name=%s", name)
