"""Services that the routes share: one bundle of services per application, made when it starts.

A route gets it as the tenant that asks may see it, whichever route that is: no route can forget whose a job is.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Annotated, TypeVar

from fastapi import Depends
from starlette.requests import HTTPConnection

from oar_wire.errors import JobExpired, JobNotFound, ModelNotFound, ModelNotReady
from oar_wire.model import ModelInfo
from oar_wire.tenant import Tenant, open_tenant
from server.api.callback_sender import CallbackSender
from server.api.gate import TENANT
from server.api.links import PictureLinks
from server.api.prompts import PromptMeter
from server.api.stream_limits import StreamLimits
from server.api.thread_pool import FairThreadPool
from server.jobs.connection import RedisConnection
from server.jobs.dead import DeadLetters
from server.jobs.events import EventLog
from server.jobs.gauge import ExporterLease, QueueGauge
from server.jobs.hub import EventHub
from server.jobs.instance import DataWatch
from server.jobs.job import JobRecord
from server.jobs.job_reader import Place
from server.jobs.limiter import RateLimiter
from server.jobs.probe import WriteProbe
from server.jobs.queue import JobQueue
from server.jobs.safety import Danger, SafetyWatch
from server.jobs.store import RecentRegistry, Registry
from server.jobs.sweeper import Sweeper
from server.jobs.usage import UsageReader
from server.observability.metrics import ApiMetrics
from server.observability.spans import NO_TRACING, Tracing
from server.results.opening import open_results
from server.results.store import ResultStore
from server.results.watch import ResultsWatch
from server.settings import Settings

T = TypeVar("T")

NUM_PARSERS = 2  # threads for large bodies: parsers hold Python's lock, and more would only contend for it
NUM_ANIMATORS = 2  # each takes up to a second
NUM_FETCHERS = 16  # they wait for a disk or for S3
PROBE_SECONDS = 1.0  # between looks whether Redis takes writes


@dataclass(frozen=True)
class PictureThreads:
    """A pool for each kind of work: reading uploads, encoding pictures, drawing animations, fetching results."""

    decoding: FairThreadPool
    encoding: FairThreadPool
    animating: FairThreadPool
    storing: FairThreadPool

    @classmethod
    def open(cls, settings: Settings, metrics: ApiMetrics) -> "PictureThreads":
        def pool(work: str, num_threads: int) -> FairThreadPool:
            made = FairThreadPool(work, num_threads, settings.picture_queue)
            metrics.pictures_waiting.labels(work).set_function(lambda: made.num_waiting)
            return made

        return cls(
            decoding=pool("decode", settings.picture_threads),
            encoding=pool("encode", settings.picture_threads),
            animating=pool("animate", NUM_ANIMATORS),
            storing=pool("fetch", NUM_FETCHERS),
        )

    async def close(self) -> None:
        for pool in (self.decoding, self.encoding, self.animating, self.storing):
            await pool.close()


@dataclass
class Services:
    settings: Settings
    metrics: ApiMetrics
    connection: RedisConnection
    queue: JobQueue
    log: EventLog
    hub: EventHub
    results: ResultStore
    results_watch: ResultsWatch
    registry: Registry
    recent: RecentRegistry
    prompts: PromptMeter
    sweeper: Sweeper
    dead: DeadLetters
    gauge: QueueGauge
    exporter: ExporterLease
    limiter: RateLimiter
    links: PictureLinks
    usage: UsageReader
    callbacks: CallbackSender
    probe: WriteProbe
    stream_limits: StreamLimits
    tracing: Tracing
    threads: PictureThreads
    parsers: ThreadPoolExecutor
    data: DataWatch
    safety: SafetyWatch
    tenant: Tenant
    root_path: str = ""  # of the request's addresses, as its client sees them
    is_stopping: bool = False

    @classmethod
    def connect(cls, settings: Settings, metrics: ApiMetrics, url: str, tracing: Tracing = NO_TRACING) -> "Services":
        connection = RedisConnection(url, settings.command_timeout, settings.redis_commands)
        registry = Registry(connection)
        results = open_results(settings, connection)
        links = PictureLinks(connection, settings)
        return cls(
            settings=settings,
            metrics=metrics,
            connection=connection,
            queue=JobQueue(connection, settings, tracing.traceparent),
            log=EventLog(connection),
            hub=EventHub(connection),
            results=results,
            results_watch=ResultsWatch(results, metrics.results_up.set),
            registry=registry,
            recent=RecentRegistry(registry, settings.registry_seconds),
            prompts=PromptMeter(registry),
            sweeper=Sweeper(connection, settings, metrics.count_swept),
            dead=DeadLetters(connection),
            gauge=QueueGauge(connection),
            exporter=ExporterLease(connection, settings.metrics_lease),
            limiter=RateLimiter(connection),
            links=links,
            usage=UsageReader(connection),
            callbacks=CallbackSender(connection, settings, links, results, metrics.count_callback),
            probe=WriteProbe(connection, PROBE_SECONDS),
            stream_limits=StreamLimits(settings.max_sockets),
            tracing=tracing,
            threads=PictureThreads.open(settings, metrics),
            parsers=ThreadPoolExecutor(NUM_PARSERS, thread_name_prefix="body-parser"),
            data=DataWatch(connection, settings),
            safety=SafetyWatch(connection, lambda found: metrics.set_dangers(Danger, found)),
            tenant=open_tenant(),
        )

    def of(self, tenant: Tenant, root_path: str = "") -> "Services":
        async def run(work: Callable[[], T]) -> T:
            return await self.threads.storing.run(tenant, work)

        return replace(
            self, tenant=tenant, queue=self.queue.of(tenant), results=self.results.of(run), root_path=root_path
        )

    async def load_job(self, job_id: str) -> JobRecord:
        """A job of the tenant, from Redis or from the store of results. Raises JobExpired, JobNotFound,
        ResultsUnavailable."""
        try:
            return await self.queue.load(job_id)
        except (JobExpired, JobNotFound):
            if (job := await self.results.find(self.tenant.name, job_id)) is not None:
                return job
            raise

    async def look(self, job_id: str) -> Place:
        """As `load_job`, with its place in the queue."""
        try:
            return await self.queue.look(job_id)
        except (JobExpired, JobNotFound):
            if (job := await self.results.find(self.tenant.name, job_id)) is not None:
                return Place(job, None, 0, 0)
            raise

    async def default_model(self) -> str | None:
        return self.settings.models[0] if self.settings.models else await self.recent.default_model()

    async def find_model(self, name: str | None) -> ModelInfo:
        """Raises ModelNotFound, or ModelNotReady for one that is to be served but is not published now."""
        requested = self.settings.model_aliases.get(name, name) if name else await self.default_model()
        info = await self.recent.model(requested) if requested else None
        if info is not None:
            return info
        # One that a worker will serve, or has served: it stays known for a while after its last worker.
        if not requested or not name or requested in self.settings.models or await self._is_to_come(requested):
            raise ModelNotReady("no worker has loaded the model yet", field="model", retry_after=2)
        raise ModelNotFound(f"there is no model {requested[:80]!r}", field="model")

    async def _is_to_come(self, name: str) -> bool:
        """Tells whether Redis has lost its data and the model may be one that its worker has yet to publish again."""
        return await self.data.is_fresh() and not await self.registry.was_published(name)


def services_of(connection: HTTPConnection) -> Services:
    """Raises KeyError for a request that did not come through the gate: then nothing is served."""
    services: Services = connection.app.state.services
    return services.of(connection.scope[TENANT], connection.scope.get("root_path", ""))


async def get_services(connection: HTTPConnection) -> Services:
    """Not a plain function: FastAPI would run that in a thread, and the request would wait for a core once more."""
    return services_of(connection)


Shared = Annotated[Services, Depends(get_services)]
