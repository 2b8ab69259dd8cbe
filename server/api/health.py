"""`/live`: this process answers. `/ready`: a request would be served. `/metrics`: Prometheus' text format."""

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from server.api import documents
from server.api.deps import Services, Shared
from server.errors import ModelNotReady, RedisUnavailable
from server.jobs.estimate import Fleet

router = APIRouter(tags=["health"])


@router.get("/live")
async def live() -> dict[str, str]:
    return {"status": "live"}


@router.get("/ready", responses=documents.errors(ModelNotReady("no worker is ready", retry_after=1)))
async def ready(services: Shared) -> dict[str, str]:
    """503 until Redis answers and a live worker has the default model; again as soon as that worker or we stop."""
    if services.is_stopping:
        raise ModelNotReady("this process is stopping", retry_after=1)
    model = await services.default_model()
    if model is None or not Fleet.of(model, await services.registry.workers()).workers:
        raise ModelNotReady("no worker is ready", retry_after=1)
    return {"status": "ready", "model": model}


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus' text"}},
)
async def metrics(services: Shared) -> Response:
    workers = await _gather(services)
    return Response(services.metrics.exposition(workers), media_type=CONTENT_TYPE_LATEST)


async def _gather(services: Services) -> dict[str, str]:
    """Queue depths as of now, and the workers' texts; without Redis, what this process knows itself."""
    try:
        for info in await services.registry.models():
            services.metrics.queue_depth.labels(info.name).set(await services.queue.depth(info.name))
        workers = await services.registry.workers()
        return {worker.name: await services.registry.metrics(worker.name) for worker in workers}
    except RedisUnavailable:
        return {}
