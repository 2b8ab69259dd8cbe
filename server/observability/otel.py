"""Traces by OpenTelemetry. Import it only where traces are asked for."""

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from requests import Session

from oar_wire.loopback import is_loopback_url
from oar_wire.version import VERSION
from server.observability.spans import Tracing

EXPORT_SECONDS = 2.0
PROPAGATOR = TraceContextTextMapPropagator()


@dataclass
class _JobSpans:
    whole: Span
    phase: Span  # the engine's, then the encoding's


class OtelTracing(Tracing):
    """Times are Unix nanoseconds: spans of several machines are laid side by side."""

    is_on = True

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("oar", VERSION)
        self._jobs: dict[str, _JobSpans] = {}

    @classmethod
    def exporting(cls, endpoint: str, service: str) -> Self:
        """Sends spans in the background; what cannot be sent is dropped and logged."""
        provider = TracerProvider(resource=Resource.create({"service.name": service}))
        session = Session()
        session.trust_env = not is_loopback_url(endpoint)  # else proxies of the environment count
        exporter = OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_SECONDS, session=session)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        return cls(provider)

    @contextmanager
    def request(self, method: str, headers: Mapping[str, str]) -> Generator[Callable[[str, int], None]]:
        parent = PROPAGATOR.extract(headers)
        attributes = {"http.request.method": method}
        with self._tracer.start_as_current_span(method, parent, SpanKind.SERVER, attributes) as span:

            def answered(route: str, status: int) -> None:
                span.update_name(f"{method} {route}")
                span.set_attribute("http.route", route)
                span.set_attribute("http.response.status_code", status)
                if status >= 500:
                    span.set_status(StatusCode.ERROR)

            yield answered

    def traceparent(self) -> str:
        carrier: dict[str, str] = {}
        PROPAGATOR.inject(carrier)
        return carrier.get("traceparent", "")

    def begin(self, job_id: str, model: str, traceparent: str, age: float, attempt: int) -> None:
        self.end(job_id, "lost")  # of an earlier claim, if it was lost and nobody has heard of it yet
        now = time.time_ns()
        accepted = now - int(age * 1e9)
        parent = PROPAGATOR.extract({"traceparent": traceparent})
        attributes = {"oar.job.id": job_id, "oar.job.attempt": attempt, "gen_ai.request.model": model}
        whole = self._tracer.start_span("job", parent, SpanKind.CONSUMER, attributes, start_time=accepted)
        context = set_span_in_context(whole)
        queue = self._tracer.start_span("queue", context, start_time=accepted)
        queue.set_attribute("gen_ai.latency.time_in_queue", age)
        queue.end(now)
        self._jobs[job_id] = _JobSpans(whole, self._tracer.start_span("engine", context, start_time=now))

    def drawn(self, job_id: str) -> None:
        spans = self._jobs.get(job_id)
        if spans is not None:
            now = time.time_ns()
            spans.phase.end(now)
            spans.phase = self._tracer.start_span("encode", set_span_in_context(spans.whole), start_time=now)

    def end(self, job_id: str, outcome: str) -> None:
        spans = self._jobs.pop(job_id, None)
        if spans is not None:
            spans.whole.set_attribute("oar.job.outcome", outcome)
            if outcome == "failed":
                spans.whole.set_status(StatusCode.ERROR)
            spans.phase.end()
            spans.whole.end()

    def close(self) -> None:
        for job_id in tuple(self._jobs):
            self.end(job_id, "handed_back")
        self._provider.shutdown()
