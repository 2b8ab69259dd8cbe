"""Metrics, prefix `oar_`, named and bucketed as vLLM's are; `docs/metrics.md` lists them all.

Labels come from small closed sets: never a prompt, an id or a path. What a client sends can make no new series.
"""

from collections import Counter as CounterOf
from collections.abc import Collection, Iterable, Sequence

from prometheus_client import Histogram

from oar_wire.errors import HostNotAllowed, InvalidKey, OriginNotAllowed, RateLimited
from oar_wire.version import VERSION
from server.observability.families import Families

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
STEP_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
ROW_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
RATIO_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
REQUEST_OUTCOMES = ("accepted", "replayed", "rejected")
REFUSALS = tuple(kind.code for kind in (InvalidKey, RateLimited, OriginNotAllowed, HostNotAllowed))
PICTURE_WORK = ("decode", "encode", "animate", "fetch")
CALLBACK_OUTCOMES = ("delivered", "failed", "given_up")
TENANT_OUTCOMES = ("let_in", RateLimited.code)
JOB_OUTCOMES = ("completed", "failed", "canceled")
SWEPT_OUTCOMES = ("failed", "canceled")


class ApiMetrics(Families):
    """Metrics of one API process."""

    def __init__(self, tenants: Iterable[str] = ()) -> None:
        super().__init__()
        self._answers = self.counter("oar_http_requests", "Answers by route and status", "method", "route", "status")
        self._answer_time = self.histogram(
            "oar_http_request_duration_seconds", "From a request to the head of its answer", LATENCY_BUCKETS, "route"
        )
        self.requests = self.counter("oar_requests", "Generation requests: accepted, replayed, rejected", "outcome")
        self.canceled_waiting = self.counter("oar_jobs_canceled_waiting", "Jobs canceled before a worker took them")
        self._swept = self.counter(
            "oar_jobs_swept", "Jobs that the API ended because no worker did, by outcome", "outcome"
        )
        self.sockets = self.gauge("oar_ws_connections", "Open websockets")
        self.event_streams = self.gauge("oar_sse_connections", "Open event streams")
        self.pictures_waiting = self.gauge(
            "oar_pictures_waiting", "Pictures that wait for a picture thread, by kind of work", "work"
        )
        self.resumed = self.counter("oar_ws_resumed", "Websockets opened with `after`")
        self.replayed = self.counter("oar_ws_replayed_events", "Events sent that are older than their websocket")
        self.slow_clients = self.counter("oar_ws_slow_client_closed", "Streams closed because the client did not read")
        self.redis_up = self.gauge("oar_redis_up", "Whether Redis answered this scrape")
        self.redis_writable = self.gauge("oar_redis_writable", "Whether Redis accepted a write at this scrape")
        self._redis_unsafe = self.gauge(
            "oar_redis_unsafe", "Whether a setting of Redis may lose jobs, by danger", "danger"
        )
        self.results_up = self.gauge("oar_results_up", "Whether results can be stored")
        self.results_bytes = self.gauge("oar_results_bytes", "Bytes of stored results")
        self.results_archived = self.counter("oar_results_archived", "Jobs moved to the store of results")
        self.results_deleted = self.counter("oar_results_deleted", "Jobs whose results were deleted")
        self._callbacks = self.counter("oar_callbacks", "Attempts at callbacks", "outcome")
        self.speaks = self.gauge("oar_fleet_exporter", "Whether this process shows the `fleet` rows")
        self._build = self.gauge("oar_build_info", "Always 1", "version", "torch", "device", "dtype", "threads")
        self._build.labels(VERSION, "none", "none", "none", "none").set(1)
        self._refused = self.counter(
            "oar_refused", "Requests and websockets refused before any route, by error code", "code"
        )
        self._by_tenant = self.counter(
            "oar_tenant_requests",
            "A tenant's requests and websockets: accepted, or over a limit",
            "tenant",
            "outcome",
        )
        for outcome in REQUEST_OUTCOMES:
            self.requests.labels(outcome)
        for outcome in CALLBACK_OUTCOMES:
            self._callbacks.labels(outcome)
        for work in PICTURE_WORK:
            self.pictures_waiting.labels(work)
        for code in REFUSALS:
            self._refused.labels(code)
        for tenant in tenants:
            for outcome in TENANT_OUTCOMES:
                self._by_tenant.labels(tenant, outcome)
        for outcome in SWEPT_OUTCOMES:
            self._swept.labels(outcome)

    def count_swept(self, outcome: str) -> None:
        self._swept.labels(outcome).inc()

    def count_callback(self, outcome: str) -> None:
        self._callbacks.labels(outcome).inc()

    def set_dangers(self, known: Iterable[str], found: Collection[str]) -> None:
        for danger in known:
            self._redis_unsafe.labels(danger).set(danger in found)

    def count_refusal(self, code: str) -> None:
        self._refused.labels(code).inc()

    def count_tenant(self, tenant: str, outcome: str) -> None:
        """Tenants are named in the operator's file: they are as many as it says."""
        self._by_tenant.labels(tenant, outcome).inc()

    def count_answer(self, method: str, route: str, status: int, seconds: float) -> None:
        """`route` is the template of a route of ours; any client can choose a method."""
        self._answers.labels(method if method in METHODS else "other", route, str(status)).inc()
        self._answer_time.labels(route).observe(seconds)


class FleetMetrics(Families):
    """Metrics of the whole system: made for each scrape, by the one API process that speaks for all."""

    def __init__(self) -> None:
        super().__init__()
        self.queue_depth = self.gauge("oar_queue_depth", "Jobs of a model that wait or run", "model")
        self.queue_waiting = self.gauge("oar_queue_waiting", "Waiting jobs of a model", "model")
        self.oldest_age = self.gauge("oar_queue_oldest_age_seconds", "Age of the oldest job that waits", "model")
        self.workers = self.gauge("oar_workers", "Live workers of a model", "model")
        self.dead_letters = self.gauge("oar_dead_letters", "Dead letters of all models")
        self.usage = self.gauge("oar_tenant_usage", "Use since midnight UTC", "tenant", "unit")
        self.callbacks_waiting = self.gauge("oar_callbacks_waiting", "Callbacks that wait")


class WorkerMetrics(Families):
    """Metrics of one worker, for each of its models."""

    def __init__(self, models: Sequence[str] = ()) -> None:
        """Counters of the models start at 0: a rate is known from the first event on."""
        super().__init__()
        self.jobs = self.counter("oar_jobs", "Jobs that this worker ended, by outcome", "model", "outcome")
        self.running = self.gauge("oar_jobs_running", "Jobs that this worker has", "model")
        self.expired = self.counter("oar_jobs_expired", "Jobs failed because their deadline passed", "model")
        self.dead = self.counter("oar_jobs_dead_lettered", "Jobs failed because their workers died too often", "model")
        self.restarted = self.counter("oar_jobs_reclaimed", "Jobs taken over from another worker", "model")
        self.lost = self.counter("oar_lease_lost", "Jobs that another worker took over", "model")
        self.patches = self.counter("oar_patches_generated", "Decoded tokens", "model")
        self.images = self.counter("oar_images_generated", "Finished images", "model")
        self.previews = self.counter("oar_previews", "Rendered previews", "model")
        self.steps = self.counter("oar_steps", "Engine steps", "model")
        self.queue_time = self._latency("oar_request_queue_time_seconds", "From acceptance to a worker")
        self.prefill = self._latency("oar_request_prefill_time_seconds", "The step that prefilled a picture")
        self.decode = self._latency("oar_request_decode_time_seconds", "From the first patch to the last")
        self.render = self._latency("oar_image_encode_time_seconds", "Tokens to PNG, for all images of a job")
        self.first_patch = self._latency("oar_time_to_first_patch_seconds", "From acceptance to the first patch")
        self.e2e = self._latency("oar_e2e_request_latency_seconds", "From acceptance to the finished pictures")
        self.inter_step = self.histogram("oar_inter_step_latency_seconds", "One engine step", STEP_BUCKETS, "model")
        self.batch_rows = self.histogram("oar_batch_rows", "Pictures that shared an engine step", ROW_BUCKETS, "model")
        self.occupancy = self.histogram(
            "oar_batch_occupancy_ratio", "Share of the cache slots that a step decoded", RATIO_BUCKETS, "model"
        )
        self.positions = self.counter("oar_positions_queried", "Queried positions, pads included", "model")
        self.pads = self.counter("oar_positions_padded", "Padded positions of attention", "model")
        self.prefilled = self.counter(
            "oar_prefill_tokens", "Tokens of prompts and known pictures that entered the cache", "model"
        )
        self.rows_used = self.gauge("oar_cache_slots_used", "Cache slots that jobs hold", "model")
        self.slots = self.gauge("oar_cache_slots", "Cache slots of the engine", "model")
        self.cache_bytes = self.gauge("oar_cache_bytes", "Bytes of the cache slots, which grow with the load", "model")
        self.load_seconds = self.gauge("oar_model_load_seconds", "Reading, checking and warming up a model", "model")
        self.results_failed = self.counter("oar_results_failed", "Failed writes to the store of results", "model")
        self._build = self.gauge("oar_build_info", "Always 1", "version", "torch", "device", "dtype", "threads")
        for model in models:
            self.start("model", model)
            for outcome in JOB_OUTCOMES:
                self.jobs.labels(model, outcome)

    def count_conclusions(self, model: str, reasons: CounterOf[str]) -> None:
        """Jobs that ended when this worker was to begin them: `canceled`, `late`, `worn_out`. Empties `reasons`."""
        for reason, count in reasons.items():
            self.jobs.labels(model, "canceled" if reason == "canceled" else "failed").inc(count)
        self.expired.labels(model).inc(reasons["late"])
        self.dead.labels(model).inc(reasons["worn_out"])
        reasons.clear()

    def count_step(self, model: str, seconds: float, rows: int, occupancy: float) -> None:
        self.steps.labels(model).inc()
        self.inter_step.labels(model).observe(seconds)
        self.batch_rows.labels(model).observe(rows)
        self.occupancy.labels(model).observe(occupancy)

    def count_query(self, model: str, positions: int, pads: int, prefilled: int) -> None:
        self.prefilled.labels(model).inc(prefilled)
        self.positions.labels(model).inc(positions)
        self.pads.labels(model).inc(pads)

    def set_build(self, torch: str, device: str, dtype: str, threads: int) -> None:
        self._build.labels(VERSION, torch, device, dtype, str(threads)).set(1)

    def _latency(self, name: str, text: str) -> Histogram:
        return self.histogram(name, text, LATENCY_BUCKETS, "model")
