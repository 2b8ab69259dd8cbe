"""What the routes share: one bundle of services per application, made when it starts."""

import asyncio
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from server.api.prompts import PromptMeter
from server.errors import ModelNotFound, ModelNotReady
from server.jobs.connection import RedisConnection
from server.jobs.dead import DeadLetters
from server.jobs.events import EventHub, EventLog
from server.jobs.gauge import ExporterLease, QueueGauge
from server.jobs.queue import JobQueue
from server.jobs.store import ImageStore, RecentRegistry, Registry
from server.jobs.sweeper import Sweeper
from server.observability.metrics import ApiMetrics
from server.observability.tracing import NO_TRACING, Tracing
from server.schemas.model import ModelInfo
from server.settings import Settings

NUM_PAINTERS = 2  # animations that are drawn at a time; others wait


@dataclass
class Services:
    settings: Settings
    metrics: ApiMetrics
    connection: RedisConnection
    queue: JobQueue
    log: EventLog
    hub: EventHub
    images: ImageStore
    registry: Registry
    recent: RecentRegistry
    prompts: PromptMeter
    sweeper: Sweeper
    dead: DeadLetters
    gauge: QueueGauge
    exporter: ExporterLease
    tracing: Tracing
    painters: asyncio.Semaphore
    num_sockets: int = 0
    is_stopping: bool = False

    @classmethod
    def connect(cls, settings: Settings, metrics: ApiMetrics, url: str, tracing: Tracing = NO_TRACING) -> "Services":
        connection = RedisConnection(url, settings.command_timeout)
        registry = Registry(connection)
        return cls(
            settings=settings,
            metrics=metrics,
            connection=connection,
            queue=JobQueue(connection, settings, tracing.traceparent),
            log=EventLog(connection),
            hub=EventHub(connection),
            images=ImageStore(connection),
            registry=registry,
            recent=RecentRegistry(registry, settings.registry_seconds),
            prompts=PromptMeter(registry),
            sweeper=Sweeper(connection, settings, metrics.count_swept),
            dead=DeadLetters(connection),
            gauge=QueueGauge(connection),
            exporter=ExporterLease(connection, settings.metrics_lease),
            tracing=tracing,
            painters=asyncio.Semaphore(NUM_PAINTERS),
        )

    async def default_model(self) -> str | None:
        return self.settings.models[0] if self.settings.models else await self.recent.default_model()

    async def find_model(self, name: str | None) -> ModelInfo:
        """Raises ModelNotFound, or ModelNotReady for one that is to be served but was never published yet."""
        wanted = name or await self.default_model()
        info = await self.recent.model(wanted) if wanted else None
        if info is not None:
            return info
        if wanted is None or wanted in self.settings.models:
            raise ModelNotReady("no worker has loaded the model yet", field="model", retry_after=2)
        raise ModelNotFound(f"there is no model {wanted[:80]!r}", field="model")


def get_services(connection: HTTPConnection) -> Services:
    return connection.app.state.services


Shared = Annotated[Services, Depends(get_services)]
