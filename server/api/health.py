"""`/live`: this process answers. `/ready`: a request would be served. `/metrics`: Prometheus' text format."""

from collections.abc import Sequence
from typing import Literal

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field

from oar_wire.errors import InvalidKey, ModelNotReady, RedisUnavailable, WritesRefused
from server.api import documents
from server.api.deps import Services, Shared
from server.api.keyring import KeyRing
from server.jobs.estimate import Fleet
from server.observability.exposition import MetricSource, expose, own, published
from server.observability.metrics import FleetMetrics
from server.results.watch import DANGER

USAGE_UNITS = ("pictures", "steps", "seconds")

router = APIRouter(tags=["health"])


class Readiness(BaseModel):
    status: Literal["ready", "degraded"] = Field(description="`degraded`: served, and something should be mended")
    model: str = Field(description="The default model")
    warnings: list[str] = Field(description="A sentence for each thing that should be mended")


@router.get("/live", summary="Whether this process answers")
async def live() -> dict[str, str]:
    return {"status": "live"}


@router.get(
    "/ready",
    summary="Whether a request would be served",
    responses=documents.errors(
        ModelNotReady.make_example("no worker is ready"),
        WritesRefused,
        is_open=True,
    ),
)
async def ready(services: Shared) -> Readiness:
    """503 until Redis answers, takes writes, and a live worker has the default model; again as soon as one of these
    ends, or this process stops. `degraded` while Redis has a setting by which it may lose jobs: requests are served, so
    that is no 503."""
    if services.is_stopping:
        raise ModelNotReady("this process is stopping", retry_after=1)
    await services.probe.check()
    model = await services.default_model()
    if model is None or not Fleet.of(model, await services.registry.workers.alive()).workers:
        raise ModelNotReady("no worker is ready", retry_after=1)
    warnings = list(services.safety.dangers.values())
    if not services.results_watch.is_up:
        warnings.append(DANGER)
    return Readiness(status="degraded" if warnings else "ready", model=model, warnings=warnings)


@router.get(
    "/metrics",
    summary="Prometheus' metrics",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus' text"},
        **documents.errors(InvalidKey("send the key of the metrics, as `Authorization: Bearer KEY`"), is_open=True),
    },
)
async def metrics(request: Request, services: Shared) -> Response:
    """Metrics of this process; of queue and workers too if this is the API process that reports them."""
    ring: KeyRing | None = request.app.state.ring
    tenants = [tenant.name for tenant in (ring.tenants if ring else (services.tenant,))]
    shared = await _gather(services, tenants, speak="all" in request.query_params)
    return Response(expose(own(services.metrics.registry), *shared), media_type=CONTENT_TYPE_LATEST)


async def _gather(services: Services, tenants: Sequence[str], *, speak: bool) -> list[MetricSource]:
    """The queue as of now and the workers' texts; nothing without Redis. `speak` is for people: it takes no lease."""
    facts = services.metrics
    try:
        facts.redis_up.set(0)
        facts.redis_writable.set(await _takes_writes(services))
        is_speaker = not speak and await services.exporter.hold()
        sources = await _fleet(services, tenants) if speak or is_speaker else []
        facts.speaks.set(is_speaker)
        facts.redis_up.set(1)
    except RedisUnavailable:
        facts.speaks.set(0)
        facts.redis_writable.set(0)
        return []
    return sources


async def _takes_writes(services: Services) -> bool:
    """Raises RedisUnavailable where Redis does not even answer."""
    try:
        await services.probe.check()
    except WritesRefused:
        return False
    return True


async def _fleet(services: Services, tenants: Sequence[str]) -> list[MetricSource]:
    fleet = FleetMetrics()
    workers = await services.registry.workers.alive()
    for name in await services.registry.served_models():
        queue = await services.gauge.read(name)
        fleet.queue_depth.labels(name).set(queue.depth)
        fleet.queue_waiting.labels(name).set(queue.waiting)
        fleet.oldest_age.labels(name).set(queue.oldest_age)
        fleet.workers.labels(name).set(sum(name in worker.models for worker in workers))
    fleet.dead_letters.set(await services.dead.count())
    fleet.callbacks_waiting.set(await services.callbacks.waiting.count())
    for tenant, used in zip(tenants, await services.usage.read_today(tenants)):
        for unit in USAGE_UNITS:
            fleet.usage.labels(tenant, unit).set(getattr(used, unit))
    texts = {worker.name: await services.registry.workers.metrics(worker.name) for worker in workers}
    repeated = texts if services.settings.metrics_workers else {}
    return [own(fleet.registry), *(published(name, text) for name, text in repeated.items())]
