"""Traces: a request's HTTP, its wait in the queue, the engine and the encoding as one trace.

The trace travels with the job, in its hash. No span is made for a step. Nothing of OpenTelemetry is imported unless
`OAR_OTLP_ENDPOINT` asks for traces.
"""

from server.observability.spans import NO_TRACING, Tracing
from server.settings import Settings


class TracingUnavailable(RuntimeError):
    """Traces are asked for, and OpenTelemetry is not installed."""


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
