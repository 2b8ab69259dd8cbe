"""One trace from the HTTP request to the picture, through a real Redis; and nothing of it where it is not asked for."""

import asyncio
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

pytest.importorskip("opentelemetry.sdk", reason="the extra `otel` is not installed")

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from server.api.app import create_app
from server.jobs.connection import RedisConnection
from server.observability.otel import OtelTracing
from server.observability.spans import NO_TRACING
from server.observability.tracing import TracingUnavailable, open_tracing
from server.settings import Settings
from server.worker.models import load_models
from server.worker.worker import Worker
from tests.waiting import HANG_SECONDS

pytestmark = pytest.mark.anyio

BODY = {"prompt": "a red circle", "seed": 7, "previews": False}
CLIENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Traced:
    """API and worker in this process, over one exporter."""

    def __init__(self, settings: Settings, connection: RedisConnection) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = OtelTracing(provider)
        self._app = create_app(settings, self.tracing)
        self._worker = Worker(settings, connection, "w", load_models(settings), self.tracing)

    async def __aenter__(self) -> httpx.AsyncClient:
        self._life = self._app.router.lifespan_context(self._app)
        await self._life.__aenter__()
        self._run = asyncio.create_task(self._worker.run())
        transport = httpx.ASGITransport(self._app)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=HANG_SECONDS)
        while (await self._client.get("/ready")).status_code != 200:
            await asyncio.sleep(0.02)
        return self._client

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()
        self._worker.stop()
        await self._run
        await self._life.__aexit__(None, None, None)

    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())


@pytest.fixture
async def traced(settings: Settings, connection: RedisConnection, weights_dir: Path) -> Traced:
    return Traced(settings.model_copy(update={"weights_dir": weights_dir, "slots": 4}), connection)


async def test_http_queue_engine_and_encode_are_one_trace(traced: Traced) -> None:
    async with traced as client:
        headers = {"traceparent": CLIENT, "Prefer": "wait=60"}
        answer = await client.post("/v1/generations", json=BODY, headers=headers)
        assert answer.json()["status"] == "completed"
    spans = {span.name: span for span in traced.spans()}
    assert set(spans) == {"POST /v1/generations", "job", "queue", "engine", "encode"}, (
        "no probe, and no step, has a span"
    )
    contexts = {name: span.get_span_context() for name, span in spans.items()}
    assert {f"{context.trace_id:032x}" for context in contexts.values() if context} == {CLIENT.split("-")[1]}
    parents = {name: span.parent.span_id for name, span in spans.items() if span.parent}
    http, job = contexts["POST /v1/generations"], contexts["job"]
    assert http is not None
    assert job is not None
    assert f"{parents['POST /v1/generations']:016x}" == CLIENT.split("-")[2]
    assert parents["job"] == http.span_id
    assert {parents[name] for name in ("queue", "engine", "encode")} == {job.span_id}
    assert spans["POST /v1/generations"].kind is SpanKind.SERVER
    assert (spans["queue"].end_time, spans["engine"].end_time) == (
        spans["engine"].start_time,
        spans["encode"].start_time,
    )
    assert (spans["job"].attributes or {})["oar.job.outcome"] == "completed"
    assert (spans["job"].attributes or {})["gen_ai.request.model"] == "tiny"
    assert (spans["POST /v1/generations"].attributes or {})["http.response.status_code"] == 200


async def test_a_prompt_is_in_no_span_and_a_failed_job_is_an_error(traced: Traced) -> None:
    secret = "a blue square, seen from the front"
    async with traced as client:
        body = {**BODY, "prompt": secret}
        job = (await client.post("/v1/generations", json=body, headers={"Prefer": "wait=60"})).json()
        assert job["status"] == "completed"
        await client.get("/v1/generations/gen-x/images/0?expires=1&signature=a-signature")
        traced.tracing.begin("gen-x", "tiny", "no traceparent", 0.1, 1)
        traced.tracing.end("gen-x", "failed")
        traced.tracing.end("gen-x", "failed")
    text = " ".join(span.to_json() for span in traced.spans())
    assert secret not in text
    assert "a-signature" not in text, "which opens a picture without a key"
    (failed,) = [span for span in traced.spans() if (span.attributes or {}).get("oar.job.id") == "gen-x"]
    assert failed.name == "job"
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.parent is None, "a job without a trace begins one"


@pytest.mark.running
async def test_a_stopping_worker_ends_the_spans_of_what_it_hands_back(traced: Traced) -> None:
    traced.tracing.begin("gen-x", "tiny", CLIENT, 0.1, 1)
    traced.tracing.close()
    assert {span.name for span in traced.spans()} == {"job", "queue", "engine"}
    assert (traced.spans()[-1].attributes or {})["oar.job.outcome"] == "handed_back"


def test_traces_are_sent_where_the_setting_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_tracing(Settings(), "oar-api") is NO_TRACING
    tracing = open_tracing(Settings(otlp_endpoint="http://127.0.0.1:9/v1/traces"), "oar-api")
    assert tracing.is_on
    tracing.close()
    monkeypatch.setitem(sys.modules, "server.observability.otel", None)
    with pytest.raises(TracingUnavailable, match=r"oar-server\[otel\]"):
        open_tracing(Settings(otlp_endpoint="http://127.0.0.1:9/v1/traces"), "oar-api")


def test_nothing_is_imported_where_no_traces_are_asked_for() -> None:
    """redis-py looks for OpenTelemetry's metrics by itself; what sends traces is ours to leave alone."""
    script = (
        "from server.api.app import create_app; from server.settings import Settings; create_app(Settings());"
        "import server.worker.worker, sys;"
        "ours = ('opentelemetry.exporter', 'opentelemetry.sdk.trace');"
        "print([name for name in sys.modules if name.startswith(ours)])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
