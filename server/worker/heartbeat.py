"""Heartbeats of a worker: that it is alive, how fast it is, which models it has."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Mapping

from oar_wire.errors import RedisUnavailable
from oar_wire.model import WorkerInfo
from server.jobs.connection import RedisConnection
from server.jobs.control import ControlStream
from server.jobs.instance import DataWatch
from server.jobs.store import Registry
from server.jobs.worker_queue import WorkerQueue
from server.observability.exposition import expose, own
from server.observability.metrics import WorkerMetrics
from server.settings import Settings
from server.worker.execution import Execution
from server.worker.models import LoadedModel

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 0.5
MOST_BEATS = 1 << 32  # that a count of heartbeats begins with


class Heartbeat:
    def __init__(
        self,
        name: str,
        settings: Settings,
        connection: RedisConnection,
        models: Mapping[str, LoadedModel],
        queues: Mapping[str, WorkerQueue],
        execution: Execution,
        control: ControlStream,
        metrics: WorkerMetrics,
    ) -> None:
        self._name = name
        self._settings = settings
        self._models = models
        self._queues = queues
        self._execution = execution
        self._control = control
        self._metrics = metrics
        self._registry = Registry(connection)
        self._data = DataWatch(connection, settings)
        # Not that of the process before, which had the same name: a count that stands still is a dead worker.
        self._num_beats = secrets.randbelow(MOST_BEATS)
        self._is_draining = False

    async def begin(self, stopping: asyncio.Event) -> bool:
        """Publishes the worker and its models, however long Redis is away; False if it was stopped before."""
        is_logged = False
        while not stopping.is_set():
            try:
                await self._publish_all()
            except RedisUnavailable as error:
                if not is_logged:
                    logger.warning("waits to announce itself: %s", error)
                is_logged = True
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), PAUSE_SECONDS)
            else:
                return True
        return False

    async def _publish_all(self) -> None:
        """Changes nothing the second time. Raises RedisUnavailable."""
        await self._data.look(self._count_jobs)
        await self._control.remove()
        for queue in self._queues.values():
            await queue.open()
        await self._publish_models()
        await self._beat()

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while True:
            await asyncio.sleep(self._settings.heartbeat_seconds)
            try:
                if await self._data.look(self._count_jobs):
                    await self._restore()
                self._execution.runner.num_vanished = 0
                await self._execution.renew()
                for queue in self._queues.values():
                    await queue.observe()
                await self._keep_models()
                await self._beat()
            except RedisUnavailable as error:
                logger.warning("no heartbeat: %s", error)

    async def announce_stop(self) -> None:
        """Announces that nobody can count on this worker from now on."""
        self._is_draining = True
        try:
            await self._beat()
        except RedisUnavailable as error:
            logger.warning("cannot tell that this worker stops: %s", error)

    async def end(self) -> None:
        """The worker is no longer known. Raises RedisUnavailable."""
        await self._registry.workers.leave(self._name)
        await self._control.remove()

    def _count_jobs(self) -> int:
        return len(self._execution.table.jobs) + self._execution.runner.num_vanished

    async def _restore(self) -> None:
        """Publishes again what Redis has lost; jobs that run here end with their next renewal."""
        self._control.rewind()
        for queue in self._queues.values():
            await queue.open()

    @property
    def _model_seconds(self) -> float:
        """Seconds that a model is known after this worker's latest heartbeat."""
        return self._settings.lease_seconds + self._settings.model_grace

    async def _keep_models(self) -> None:
        """Publishes the models again where Redis has lost or evicted them."""
        names = tuple(self._models)
        if not await self._registry.keep_models(names, self._model_seconds):
            logger.warning("published again, as Redis knew nothing of them: models=%s", ",".join(names))
            await self._publish_models(becomes_default=False)

    async def _publish_models(self, *, becomes_default: bool = True) -> None:
        pipelines = {name: model.pipeline for name, model in self._models.items()}
        await self._registry.publish_models(
            [model.info() for model in self._models.values()],
            {name: pipeline.conditioner.to_json() for name, pipeline in pipelines.items()},
            self._model_seconds,
            vocabularies={
                name: words.to_json() for name, pipeline in pipelines.items() if (words := pipeline.vocabulary)
            },
            becomes_default=becomes_default,
        )

    async def _beat(self) -> None:
        self._num_beats += 1
        speed = self._execution.speed
        info = WorkerInfo(
            name=self._name,
            models=tuple(self._models),
            slots=sum(model.slots for model in self._models.values()),
            step_seconds=round(speed.step_seconds, 6),
            base_seconds=round(speed.step_times.base_seconds, 6),
            row_seconds=round(speed.step_times.row_seconds, 6),
            picture_seconds=round(speed.picture_seconds, 6),
            is_draining=self._is_draining,
            beats=self._num_beats,
            lease_seconds=self._settings.lease_seconds,
        )
        await self._registry.workers.publish_metrics(
            self._name, expose(own(self._metrics.registry)), self._settings.lease_seconds
        )
        await self._registry.workers.beat(info, self._settings.lease_seconds)
