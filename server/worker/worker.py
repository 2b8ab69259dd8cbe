"""The worker process: loads models, serves jobs, stops within a bound on SIGTERM or SIGINT."""

import asyncio
import gc
import logging
import signal
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from prometheus_client import CollectorRegistry, start_http_server

from oar_wire.errors import RedisUnavailable
from server.jobs.check import wait_for_redis
from server.jobs.connection import RedisConnection
from server.jobs.control import ControlStream
from server.jobs.embedded import redis_url
from server.jobs.redis_log import RedisJobLog
from server.jobs.worker_queue import WorkerQueue
from server.observability.exposition import Labelled
from server.observability.metrics import WorkerMetrics
from server.observability.spans import NO_TRACING, Tracing
from server.observability.tracing import open_tracing
from server.results.opening import check_results, open_results
from server.results.store import WITH_THE_ENDING, ResultWriter
from server.settings import Settings
from server.tasks import stop_tasks
from server.worker.execution import Execution
from server.worker.heartbeat import Heartbeat
from server.worker.identity import Identity
from server.worker.lease import JobTaker, Leases
from server.worker.models import LoadedModel, load_models
from server.worker.running import RunningJob

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 2.0


class WorkerCrashed(RuntimeError):
    """The model failed. The process has to end; its jobs are begun again by the next one."""


class Worker:
    """Has to be made inside a running event loop."""

    def __init__(
        self,
        settings: Settings,
        connection: RedisConnection,
        name: str,
        models: Sequence[LoadedModel],
        tracing: Tracing = NO_TRACING,
        results: ResultWriter = WITH_THE_ENDING,
    ) -> None:
        self.metrics = WorkerMetrics([model.name for model in models])
        self._settings = settings
        by_name = {model.name: model for model in models}
        queues = {
            model.name: WorkerQueue(connection, settings, name, model.name, model.pipeline.model_hash)
            for model in models
        }
        log, control = RedisJobLog(connection, queues), ControlStream(connection, name)
        self._execution = Execution(settings, log, by_name, self.metrics, tracing, results)
        self._leases = Leases(log, self._execution, control)
        self._takers = [JobTaker(queue, self._execution, self.metrics) for queue in queues.values()]
        self._heartbeat = Heartbeat(name, settings, connection, by_name, queues, self._execution, control, self.metrics)
        self._stopping = asyncio.Event()

    @property
    def jobs(self) -> tuple[RunningJob, ...]:
        """Jobs that run now."""
        return self._execution.table.jobs

    def stop(self) -> None:
        """Takes no more jobs; `run` returns when those that run have ended or were handed back."""
        self._stopping.set()
        for taker in self._takers:
            taker.stop()

    async def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Serves until `stop`; calls `on_ready` when it takes jobs. Raises WorkerCrashed.

        It stops in three steps: no more jobs are taken, and whoever asks learns so first; those that run may finish;
        after `drain_seconds` the rest is handed back. It returns at once if it is stopped before Redis was reached.
        """
        if not await self._heartbeat.begin(self._stopping):
            return
        execution = self._execution.start()
        background = [asyncio.create_task(work) for work in (self._heartbeat.run(), self._leases.follow_cancels())]
        takers = [asyncio.create_task(taker.run()) for taker in self._takers]
        on_ready()
        try:
            await _wait_for_stop(self._stopping, [*execution, *background, *takers])
            await self._heartbeat.announce_stop()
            await asyncio.gather(*takers)
            await self._drain([*execution, *background])
        finally:
            await stop_tasks([*background, *takers])
            await self._execution.stop()

    async def _drain(self, needed: Sequence[asyncio.Future[None]]) -> None:
        """Raises WorkerCrashed where one of those who are needed has failed."""
        await self._leases.drain(self._settings.drain_seconds, needed)
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._leases.hand_back()
                await self._heartbeat.end()
        except (TimeoutError, RedisUnavailable) as error:
            logger.warning("stopped without handing everything back: %s", error or "too slow")
        _raise_crash(needed)


async def _wait_for_stop(stopping: asyncio.Event, needed: Sequence[asyncio.Future[None]]) -> None:
    """Raises WorkerCrashed when one of those who are needed fails before."""
    stop = asyncio.create_task(stopping.wait())
    done, _ = await asyncio.wait((stop, *needed), return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    _raise_crash(done - {stop})


def _raise_crash(futures: Iterable[asyncio.Future[Any]]) -> None:
    for future in futures:
        if future.done() and (error := future.exception()) is not None:
            raise WorkerCrashed(f"{type(error).__name__}: {error}") from error


def run_worker(settings: Settings, on_ready: Callable[[], None] = lambda: None) -> None:
    """Returns after a signal; calls `on_ready` when it takes jobs.

    Raises WeightsError, EmbeddedRedisError, RedisRefused, ResultsRefused, TracingUnavailable, WorkerCrashed.
    """
    check_results(settings)
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
        worker = Worker(settings, connection, name, models, tracing, open_results(settings, connection))
        for model in models:
            set_model_facts(worker.metrics, model)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, worker.stop)
        if settings.worker_metrics_port:
            registry = CollectorRegistry(auto_describe=False)
            registry.register(Labelled(worker.metrics.registry, worker=name))
            start_http_server(settings.worker_metrics_port, registry=registry)
        # What is there now stays: a full collection would look at all of it, and stop every step for 100 ms.
        gc.collect()
        gc.freeze()
        logger.info("worker ready name=%s models=%s", name, ",".join(model.name for model in models))
        await worker.run(on_ready)
    finally:
        await connection.close()
        await asyncio.to_thread(tracing.close)
    logger.info("worker stopped name=%s", name)


def set_model_facts(metrics: WorkerMetrics, model: LoadedModel) -> None:
    """The facts about a loaded model that do not change."""
    weight = next(model.pipeline.backbone.parameters())
    metrics.set_build(torch.__version__, weight.device.type, model.dtype, torch.get_num_threads())
    metrics.slots.labels(model.name).set(model.slots)
    metrics.cache_bytes.labels(model.name).set(model.engine.cache_bytes)
    metrics.load_seconds.labels(model.name).set(model.load_seconds)
