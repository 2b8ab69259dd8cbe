"""Traces: a request's HTTP, its wait in the queue, the engine and the encoding as one trace.

The trace travels with the job, in its hash. No span is made for a step. Nothing of OpenTelemetry is imported unless
`OAR_OTLP_ENDPOINT` asks for traces.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager

from server.settings import Settings


class TracingUnavailable(RuntimeError):
    """Traces are asked for, and OpenTelemetry is not installed."""


class Tracing:
    """Traces of API and workers; this one traces nothing. Calls of a job come from one thread, in their order."""

    is_on = False

    @contextmanager
    def request(self, method: str, headers: Mapping[str, str]) -> Generator[Callable[[str, int], None]]:  # noqa: ARG002
        """Makes a span around the serving of a request; its `traceparent` header makes the span a part of the client's
        trace. What it gives is called with the route and the status of the answer."""
        yield lambda _route, _status: None

    def traceparent(self) -> str:
        """Trace of the request that is served in this context; empty outside of one."""
        return ""

    def begin(self, job_id: str, model: str, traceparent: str, age: float, attempt: int) -> None:
        """A worker begins a job that was accepted `age` seconds ago."""

    def drawn(self, job_id: str) -> None:
        """The engine is done with all of a job's images."""

    def end(self, job_id: str, outcome: str) -> None:
        """The worker is done with a job, or lost it. An unknown job is nothing new."""

    def close(self) -> None:
        """Sends what was not sent yet."""


NO_TRACING = Tracing()


def open_tracing(settings: Settings, service: str) -> Tracing:
    """`service` is what the process is called in traces. Raises TracingUnavailable."""
    if settings.otlp_endpoint is None:
        return NO_TRACING
    try:
        from server.observability.otel import OtelTracing
    except ModuleNotFoundError as error:
        message = "OAR_OTLP_ENDPOINT asks for traces: pip install 'oar-server[otel]'"
        raise TracingUnavailable(message) from error
    return OtelTracing.exporting(settings.otlp_endpoint, service)
