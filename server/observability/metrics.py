"""Metrics, prefix `oar_`. Labels come from small closed sets: never a prompt, an id or a path."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

LATENCY_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300)
STEP_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
ROW_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
METHODS = frozenset({"GET", "POST", "DELETE", "HEAD", "OPTIONS"})


class ApiMetrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._answers = Counter(
            "oar_http_requests", "Answers by route and status", ("method", "route", "status"), registry=self.registry
        )
        self.requests = Counter(
            "oar_requests", "Generation requests: accepted, replayed, rejected", ("outcome",), registry=self.registry
        )
        self.queue_depth = Gauge(
            "oar_queue_depth", "Jobs of a model that wait or run", ("model",), registry=self.registry
        )
        self.sockets = Gauge("oar_ws_connections", "Open websockets", registry=self.registry)
        self.event_streams = Gauge("oar_sse_connections", "Open event streams", registry=self.registry)
        self.slow_clients = Counter(
            "oar_ws_slow_client_closed",
            "Websockets and event streams closed because the client did not read",
            registry=self.registry,
        )

    def count_answer(self, method: str, route: str, status: int) -> None:
        self._answers.labels(method if method in METHODS else "other", route, str(status)).inc()

    def exposition(self, workers: Mapping[str, str]) -> bytes:
        """Our own metrics and those that the workers published, which get a `worker` label."""
        merged = CollectorRegistry()
        merged.register(_Published(workers))
        return generate_latest(self.registry) + generate_latest(merged)


class WorkerMetrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.jobs = self._counter("oar_jobs", "Jobs that ended: completed, failed, canceled", "model", "outcome")
        self.lost = self._counter("oar_lease_lost", "Jobs that another worker took over", "model")
        self.restarted = self._counter("oar_jobs_restarted", "Jobs begun again after their worker went", "model")
        self.patches = self._counter("oar_patches_generated", "Decoded tokens", "model")
        self.images = self._counter("oar_images_generated", "Finished images", "model")
        self.steps = self._counter("oar_steps", "Engine steps", "model")
        self.previews = self._counter("oar_previews", "Rendered previews", "model")
        self.queue_time = self._histogram("oar_queue_time_seconds", "From acceptance to a worker")
        self.first_patch = self._histogram("oar_time_to_first_patch_seconds", "From acceptance to the first patch")
        self.e2e = self._histogram("oar_e2e_latency_seconds", "From acceptance to the finished pictures")
        self.render = self._histogram("oar_image_decode_encode_seconds", "Tokens to PNG, for all images of a job")
        self.inter_step = self._histogram("oar_inter_step_latency_seconds", "One engine step", STEP_BUCKETS)
        self.batch_rows = self._histogram("oar_batch_rows", "Pictures that shared an engine step", ROW_BUCKETS)
        self.rows_used = Gauge("oar_rows_used", "Engine rows that jobs hold", ("model",), registry=self.registry)

    def exposition(self) -> bytes:
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...] = LATENCY_BUCKETS) -> Histogram:
        return Histogram(name, text, ("model",), buckets=buckets, registry=self.registry)


class _Published:
    """Collects texts of several workers as one set of families."""

    def __init__(self, workers: Mapping[str, str]) -> None:
        self._workers = workers

    def collect(self) -> Iterable[Metric]:
        samples: dict[str, list[tuple[str, dict[str, str], float]]] = defaultdict(list)
        families: dict[str, Metric] = {}
        for worker, text in self._workers.items():
            for family in text_string_to_metric_families(text):
                families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    samples[family.name].append((sample.name, {**sample.labels, "worker": worker}, sample.value))
        for name, family in families.items():
            for sample_name, labels, value in samples[name]:
                family.add_sample(sample_name, labels, value)
            yield family
