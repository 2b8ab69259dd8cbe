"""The API process: `create_app(settings)`. It never imports torch."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine
from typing import Any

from fastapi import FastAPI, WebSocket
from fastapi.middleware.cors import CORSMiddleware

from oar_wire.errors import RedisUnavailable, ResourceNotFound
from oar_wire.tenant import open_tenant
from oar_wire.version import VERSION
from server.api import (
    callbacks,
    documents,
    edits,
    faults,
    generations,
    health,
    images,
    models,
    pages,
    painting,
    stream,
    usage,
    viewer,
)
from server.api.deps import Services
from server.api.gate import Gate
from server.api.keyring import KeyRing
from server.api.middleware import BodyLimit, CountAnswers, HeadAsGet, TraceRequests
from server.api.origin import OriginCheck
from server.api.proxy import ProxyHeaders
from server.api.refusal import deny
from server.api.request_id import RequestIds
from server.jobs.embedded import redis_url
from server.observability.metrics import ApiMetrics
from server.observability.spans import Tracing
from server.observability.tracing import open_tracing
from server.results.archiver import Archiver
from server.results.opening import open_files
from server.results.retention import RetentionLoop, Swept
from server.settings import Settings
from server.tasks import stop_tasks

UPLOAD_PATHS = ("/v1/edits", "/v1/images/edits", "/v1/images/variations")
# What pages of the allowed origins may send, and read of an answer.
CORS_METHODS = ("GET", "POST", "DELETE")
CORS_HEADERS = (
    *("Authorization", "Cancel-After", "Content-Type", "Idempotency-Key", "If-None-Match", "Last-Event-ID", "Prefer"),
    *("traceparent", "tracestate", "X-Request-Id"),
)
CORS_ANSWERS = (
    *("ETag", "Location", "OAR-Warning", "Preference-Applied", "Retry-After", "WWW-Authenticate", "X-Request-Id"),
)


def create_app(settings: Settings, tracing: Tracing | None = None) -> FastAPI:
    """Raises TracingUnavailable, KeyFileError."""
    ring = KeyRing(settings.api_keys) if settings.api_keys else None
    metrics = ApiMetrics(tenant.name for tenant in (ring.tenants if ring else [open_tenant()]))
    traces = tracing or open_tracing(settings, "oar-api")
    app = FastAPI(
        title="OAR server",
        summary="Images, painted patch by patch",
        version=VERSION,
        lifespan=lambda app: _serving(app, settings, metrics, traces),
        generate_unique_id_function=documents.operation_id,
        # `viewer` serves them: without another host, and under the studio's policy.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )
    app.state.ring = ring
    faults.install(app)
    for module in (generations, painting, edits, images, stream, models, callbacks, usage, health):
        app.include_router(module.router)
    app.include_router(pages.make_studio_router())
    app.include_router(viewer.make_viewer_router(VERSION))
    app.add_api_websocket_route("/{path:path}", _no_such_socket)
    document = app.openapi
    app.openapi = lambda: documents.tidy(document())
    _add_middleware(app, settings, metrics, traces)
    return app


@contextlib.asynccontextmanager
async def _serving(app: FastAPI, settings: Settings, metrics: ApiMetrics, traces: Tracing) -> AsyncGenerator[None]:
    """Holds the services of an application, and runs what works in the background."""
    ring: KeyRing | None = app.state.ring
    with redis_url(settings) as url:
        services = Services.connect(settings, metrics, url, traces)
        app.state.services = services
        works = [services.hub.run(), services.sweeper.run(), services.safety.run(), services.callbacks.run()]
        works += [services.data.run(lambda: services.hub.num_watched, services.hub.note_loss), *_results_work(services)]
        if ring is not None:
            works.append(ring.run())
        background = [asyncio.create_task(work) for work in works]
        try:
            yield
        finally:
            await stop_tasks(background)
            with contextlib.suppress(RedisUnavailable):
                await services.exporter.release()
            await services.threads.close()
            services.parsers.shutdown(wait=False, cancel_futures=True)
            await services.connection.close()
            await asyncio.to_thread(traces.close)


def _add_middleware(app: FastAPI, settings: Settings, metrics: ApiMetrics, traces: Tracing) -> None:
    """Adds what a request passes before its route, from the last to the first."""
    uploads: dict[str, int] = dict.fromkeys(UPLOAD_PATHS, settings.max_upload_bytes)
    app.add_middleware(HeadAsGet)
    app.add_middleware(BodyLimit, limit=settings.max_body_bytes, uploads=uploads, max_held=settings.max_held_bytes)
    app.add_middleware(Gate, ring=app.state.ring, metrics_key=settings.metrics_key, metrics=metrics)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=CORS_METHODS,
            allow_headers=CORS_HEADERS,
            expose_headers=CORS_ANSWERS,
        )
    app.add_middleware(
        OriginCheck,
        host=settings.host,
        allowed=settings.allowed_origins,
        allowed_hosts=settings.allowed_hosts,
        metrics=metrics,
    )
    app.add_middleware(CountAnswers, count=metrics.count_answer)
    if traces.is_on:
        app.add_middleware(TraceRequests, tracing=traces)
    app.add_middleware(ProxyHeaders, root_path=settings.root_path, trusted=settings.trusted_proxies)
    # Around Starlette's own outermost layer, which answers our mistakes.
    app.middleware_stack = RequestIds(app.build_middleware_stack())


def _results_work(services: Services) -> list[Coroutine[Any, Any, None]]:
    """Work for results that are kept apart from Redis."""
    files = open_files(services.settings)
    if files is None:
        return []
    metrics, connection, settings = services.metrics, services.connection, services.settings

    def note(swept: Swept) -> None:
        metrics.results_bytes.set(swept.num_bytes)
        metrics.results_deleted.inc(swept.num_deleted)

    archiver = Archiver(connection, settings, services.results, metrics.results_archived.inc)
    return [archiver.run(), RetentionLoop(connection, settings, files, note).run(), services.results_watch.run()]


async def _no_such_socket(socket: WebSocket, path: str) -> None:  # noqa: ARG001
    """Refuses a handshake at any other address. Starlette's own refusal has no body and no name."""
    await deny(ResourceNotFound("there is nothing here"), socket.scope, socket.receive, socket.send)
