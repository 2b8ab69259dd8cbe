"""Traces: a request's HTTP, its wait in the queue, the engine and the encoding as one trace.

The trace travels with the job, in its hash. No span is made for a step. Nothing of OpenTelemetry is imported unless
`OAR_OTLP_ENDPOINT` asks for traces.
"""

from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from server.settings import Settings


class TracingUnavailable(RuntimeError):
    """Traces are asked for, and OpenTelemetry is not installed."""


class RequestSpan(Protocol):
    def answered(self, route: str, status: int) -> None: ...


class Tracing(Protocol):
    """Traces of API and workers. A job's calls come from one thread, in the order of its life."""

    @property
    def is_on(self) -> bool: ...

    def request(self, method: str, headers: Mapping[str, str]) -> AbstractContextManager[RequestSpan]:
        """Span around the serving of a request; its `traceparent` header makes the span a part of the client's
        trace."""
        ...

    def traceparent(self) -> str:
        """Trace of the request that is served in this context; empty outside of one."""
        ...

    def begin(self, job_id: str, model: str, traceparent: str, age: float, attempt: int) -> None:
        """A worker begins a job that was accepted `age` seconds ago."""
        ...

    def drawn(self, job_id: str) -> None:
        """The engine is done with all of a job's images."""
        ...

    def end(self, job_id: str, outcome: str) -> None:
        """The worker is done with a job, or lost it. An unknown job is nothing new."""
        ...

    def close(self) -> None:
        """Sends what was not sent yet."""
        ...


class NoTracing:
    """Tells nobody."""

    is_on = False

    @contextmanager
    def request(self, method: str, headers: Mapping[str, str]) -> Generator[RequestSpan]:  # noqa: ARG002
        yield self

    def answered(self, route: str, status: int) -> None:
        pass

    def traceparent(self) -> str:
        return ""

    def begin(self, job_id: str, model: str, traceparent: str, age: float, attempt: int) -> None:
        pass

    def drawn(self, job_id: str) -> None:
        pass

    def end(self, job_id: str, outcome: str) -> None:
        pass

    def close(self) -> None:
        pass


NO_TRACING = NoTracing()


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
