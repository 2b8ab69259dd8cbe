"""The API process: `create_app(settings)`. It never imports torch."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from fastapi import FastAPI

from server.api import documents, edits, faults, generations, health, images, models, pages, painting, stream
from server.api.deps import Services
from server.api.middleware import BodyLimit, CountAnswers, TraceRequests
from server.errors import RedisUnavailable
from server.jobs.embedded import redis_url
from server.observability.metrics import ApiMetrics
from server.observability.tracing import Tracing, open_tracing
from server.settings import Settings
from server.tasks import stop_tasks

UPLOAD_PATHS = ("/v1/edits", "/v1/images/edits")


def create_app(settings: Settings, tracing: Tracing | None = None) -> FastAPI:
    """Raises TracingUnavailable."""
    metrics = ApiMetrics()
    traces = tracing or open_tracing(settings, "oar-api")

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        with redis_url(settings) as url:
            services = Services.connect(settings, metrics, url, traces)
            app.state.services = services
            background = [asyncio.create_task(services.hub.run()), asyncio.create_task(services.sweeper.run())]
            try:
                yield
            finally:
                await stop_tasks(background)
                with contextlib.suppress(RedisUnavailable):
                    await services.exporter.release()
                await services.connection.close()
                await asyncio.to_thread(traces.close)

    app = FastAPI(title="OAR server", summary="Images, painted patch by patch", version="0.1.0", lifespan=lifespan)
    faults.install(app)
    routed = (generations, painting, edits, images, stream, models, health)
    for router in (*(module.router for module in routed), pages.make_router()):
        app.include_router(router)
    document = app.openapi
    app.openapi = lambda: documents.tidy(document())
    uploads: dict[str, int] = dict.fromkeys(UPLOAD_PATHS, settings.max_upload_bytes)
    app.add_middleware(BodyLimit, limit=settings.max_body_bytes, uploads=uploads)
    app.add_middleware(CountAnswers, count=metrics.count_answer)
    if traces.is_on:
        app.add_middleware(TraceRequests, tracing=traces)
    return app
