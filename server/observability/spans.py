"""Spans of requests and jobs, for whoever makes them: this file needs nothing of OpenTelemetry."""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager


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
