"""The API process: `create_app(settings)`. It never imports torch."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from fastapi import FastAPI
from fastapi.responses import JSONResponse, RedirectResponse

from server.api import asyncapi, documents, edits, faults, generations, health, images, models, stream
from server.api.deps import Services
from server.api.middleware import BodyLimit, CountAnswers, TraceRequests
from server.errors import RedisUnavailable
from server.jobs.embedded import redis_url
from server.observability.metrics import ApiMetrics
from server.observability.tracing import Tracing, open_tracing
from server.settings import Settings
from server.tasks import stop_tasks

VERSION = "0.1.0"
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

    app = FastAPI(
        title="OAR server",
        summary="Images, painted patch by patch",
        version=VERSION,
        lifespan=lifespan,
        generate_unique_id_function=documents.operation_id,
    )
    faults.install(app)
    for router in (generations.router, edits.router, images.router, stream.router, models.router, health.router):
        app.include_router(router)
    document = app.openapi
    app.openapi = lambda: documents.tidy(document())
    app.add_api_route("/asyncapi.json", _events_document, include_in_schema=False)
    app.add_api_route("/", _home, include_in_schema=False)
    uploads: dict[str, int] = dict.fromkeys(UPLOAD_PATHS, settings.max_upload_bytes)
    app.add_middleware(BodyLimit, limit=settings.max_body_bytes, uploads=uploads)
    app.add_middleware(CountAnswers, count=metrics.count_answer)
    if traces.is_on:
        app.add_middleware(TraceRequests, tracing=traces)
    return app


async def _events_document() -> JSONResponse:
    return JSONResponse(asyncapi.document(VERSION))


async def _home() -> RedirectResponse:
    return RedirectResponse("/docs")
