"""The worker process: loads models, serves jobs, stops within a bound on SIGTERM or SIGINT."""

import asyncio
import logging
import signal
from collections.abc import Callable

import torch
from prometheus_client import CollectorRegistry, start_http_server

from server.jobs.check import wait_for_redis
from server.jobs.connection import RedisConnection
from server.jobs.embedded import redis_url
from server.observability.exposition import Labelled
from server.observability.metrics import WorkerMetrics
from server.observability.tracing import open_tracing
from server.settings import Settings
from server.worker.bridge import Bridge
from server.worker.identity import Identity
from server.worker.models import LoadedModel, load_models

logger = logging.getLogger(__name__)


def run_worker(settings: Settings, on_ready: Callable[[], None] = lambda: None) -> None:
    """Returns after a signal; calls `on_ready` when it takes jobs.

    Raises WeightsError, EmbeddedRedisError, RedisRefused, TracingUnavailable, WorkerCrashed.
    """
    identity = Identity(settings.data_dir)
    try:
        if settings.redis_url:
            wait_for_redis(settings.redis_url, settings.command_timeout)  # before the models, which take long
        models = load_models(settings)
        with redis_url(settings) as url:
            asyncio.run(_serve(settings, url, identity.name, models, on_ready))
    finally:
        identity.close()


async def _serve(
    settings: Settings, url: str, name: str, models: list[LoadedModel], on_ready: Callable[[], None]
) -> None:
    connection = RedisConnection(url, settings.command_timeout)
    tracing = open_tracing(settings, "oar-worker")
    try:
        bridge = Bridge(settings, connection, name, models, tracing)
        for model in models:
            describe(bridge.metrics, model)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, bridge.stop)
        if settings.worker_metrics_port:
            registry = CollectorRegistry(auto_describe=False)
            registry.register(Labelled(bridge.metrics.registry, worker=name))
            start_http_server(settings.worker_metrics_port, registry=registry)
        logger.info("worker ready name=%s models=%s", name, ",".join(model.name for model in models))
        await bridge.run(on_ready)
    finally:
        await connection.close()
        await asyncio.to_thread(tracing.close)
    logger.info("worker stopped name=%s", name)


def describe(metrics: WorkerMetrics, model: LoadedModel) -> None:
    """The facts about a loaded model that do not change."""
    weight = next(model.pipeline.backbone.parameters())
    metrics.set_build(torch.__version__, weight.device.type, model.dtype, torch.get_num_threads())
    metrics.slots.labels(model.name).set(model.slots)
    metrics.cache_bytes.labels(model.name).set(model.engine.cache_bytes)
    metrics.load_seconds.labels(model.name).set(model.load_seconds)
