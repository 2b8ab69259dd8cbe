"""Rows of the dashboard's panels and their queries. Grafana's JSON, the picture and the tests are made of it.

Queries are PromQL with the dashboard's variables in them: `$model`, `$worker`, `$quantile` and `$interval`.
"""

from dataclasses import dataclass
from typing import Literal

GRID = 24  # columns of a row

Kind = Literal["tile", "lines", "stack", "heatmap"]
Unit = Literal["s", "percentunit", "short", "bytes", "reqps", "ops"]


@dataclass(frozen=True)
class PanelQuery:
    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    kind: Kind
    title: str
    text: str
    unit: Unit
    queries: tuple[PanelQuery, ...]
    width: int = 8
    height: int = 8
    bounds: tuple[float, float] | None = None  # of a tile: bad on one side, good beyond the other


@dataclass(frozen=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Variable:
    name: str
    label: str
    query: str | None  # of Prometheus' label values; None where the choices are fixed
    choices: tuple[str, ...] = ()
    default: str = ""


VARIABLES = (
    Variable("model", "Model", "label_values(oar_cache_slots, model)"),
    Variable("worker", "Worker", "label_values(oar_cache_slots, worker)"),
    Variable("quantile", "Quantile", None, ("0.5", "0.9", "0.95", "0.99"), "0.95"),
    Variable("interval", "Interval", None, ("1m", "5m", "15m", "1h"), "1m"),
)

MODEL = 'model=~"$model"'
ENGINE = f'{MODEL},worker=~"$worker"'


def fill(expr: str, **values: str) -> str:
    """The query with every variable's value in its place."""
    for name, value in values.items():
        expr = expr.replace(f"${name}", value)
    assert "$" not in expr, f"a variable has no value: {expr}"
    return expr


def rate_of(name: str, labels: str = ENGINE, by: str = "") -> str:
    total = f"sum by ({by})" if by else "sum"
    return f"{total} (rate({name}{{{labels}}}[$interval]))"


def mean(name: str, by: str = "") -> str:
    return f"{rate_of(f'{name}_sum', by=by)} / {rate_of(f'{name}_count', by=by)}"


def quantile_of(level: str, name: str, labels: str = ENGINE, by: str = "") -> str:
    return f"histogram_quantile({level}, {rate_of(f'{name}_bucket', labels, by=f'le, {by}' if by else 'le')})"


def share_within(name: str, bound: int) -> str:
    """The share of observations of at most `bound` seconds, which is a bucket's; Prometheus writes it as 1 or 1.0."""
    good = rate_of(f"{name}_bucket", f'{ENGINE},le=~"{bound}(\\\\.0)?"')
    return f"{good} / ({rate_of(f'{name}_count')} > 0)"


def latency(title: str, text: str, name: str) -> Panel:
    return Panel(
        "lines",
        title,
        text,
        "s",
        (
            PanelQuery(quantile_of("0.5", name, by="model"), "{{model}} median"),
            PanelQuery(quantile_of("$quantile", name, by="model"), "{{model}} q$quantile"),
        ),
    )


def heatmap(title: str, text: str, name: str) -> Panel:
    buckets = f"sum by (le) (increase({name}_bucket{{{ENGINE}}}[$interval]))"
    return Panel("heatmap", title, text, "s", (PanelQuery(buckets, "{{le}}"),), width=12)


def counts(title: str, text: str, *names: tuple[str, str]) -> Panel:
    queries = tuple(PanelQuery(rate_of(name), legend) for name, legend in names)
    return Panel("lines", title, text, "ops", queries)


FIRST_PATCH = "oar_time_to_first_patch_seconds"
E2E = "oar_e2e_request_latency_seconds"
ALL_ANSWERS = "sum (rate(oar_http_requests_total[$interval]))"
FAULTS = '(sum (rate(oar_http_requests_total{status=~"5.."}[$interval])) or vector(0))'
COMPLETED = rate_of("oar_jobs_total", f'{ENGINE},outcome="completed"')
ENDED = rate_of("oar_jobs_total", f'{ENGINE},outcome=~"completed|failed"')

# What a series means is its colour, in every panel.
TONES = {
    "completed": "green", "accepted": "green", "failed": "red", "rejected": "orange", "canceled": "purple",
    "canceled while it waited": "blue", "replayed": "blue", "lost": "orange", "reclaimed": "blue", "5xx": "red",
    "429": "orange", "dead letters": "red", "expired": "orange",
}  # fmt: skip

ROWS = (
    Row(
        "Promises",
        (
            Panel("tile", "First patch within 1 s", "Share of the jobs, from acceptance.", "percentunit",
                  (PanelQuery(share_within(FIRST_PATCH, 1), "share"),), 4, 4, (0.9, 0.99)),
            Panel("tile", "Pictures within 5 s", "Share of the jobs, from acceptance on.", "percentunit",
                  (PanelQuery(share_within(E2E, 5), "share"),), 4, 4, (0.9, 0.99)),
            Panel("tile", "Jobs that succeed", "Of those that completed or failed.", "percentunit",
                  (PanelQuery(f"{COMPLETED} / ({ENDED} > 0)", "share"),),
                  4, 4, (0.95, 0.999)),
            Panel("tile", "Answers without a fault", "Share of HTTP answers below 500.", "percentunit",
                  (PanelQuery(f"1 - {FAULTS} / ({ALL_ANSWERS} > 0)", "share"),), 4, 4, (0.99, 0.999)),
            Panel("tile", "Jobs in the queue", "That wait or run, of all models chosen.", "short",
                  (PanelQuery(f"sum (oar_queue_depth{{{MODEL}}})", "jobs"),), 4, 4, (200, 50)),
            Panel("tile", "Workers alive", "By their heartbeats in Redis.", "short",
                  (PanelQuery(f"sum (oar_workers{{{MODEL}}})", "workers"),), 4, 4, (0.5, 1)),
        ),
    ),
    Row(
        "Latency",
        (
            latency("Time to first patch", "From acceptance to the first patch of a job.", FIRST_PATCH),
            latency("End to end", "From acceptance to the finished pictures of a job.", E2E),
            latency("Between steps", "One engine step: how often the pictures of a batch get patches.",
                    "oar_inter_step_latency_seconds"),
            heatmap("Time to first patch, all jobs", "How many jobs took how long.", FIRST_PATCH),
            heatmap("End to end, all jobs", "How many jobs took how long.", E2E),
            Panel("stack", "Where the time goes", "Mean seconds of a job in each phase.", "s", tuple(
                  PanelQuery(mean(f"oar_{name}_time_seconds"), legend) for name, legend in (
                      ("request_queue", "queue"), ("request_prefill", "prefill"), ("request_decode", "decode"),
                      ("image_encode", "encode")))),
            latency("Encode", "Tokens to PNG, for all images of a job.", "oar_image_encode_time_seconds"),
            Panel("lines", "HTTP, by route", "From a request to the head of its answer.", "s",
                  (PanelQuery(quantile_of("$quantile", "oar_http_request_duration_seconds", 'route=~"/v1/.*"', "route"),
                         "{{route}}"),)),
        ),
    ),
    Row(
        "Throughput",
        (
            Panel("lines", "Requests, by outcome", "What became of submitted requests.", "reqps",
                  (PanelQuery(rate_of("oar_requests_total", "", "outcome"), "{{outcome}}"),), 6),
            Panel("lines", "Jobs that ended, by outcome",
                  "As workers ended them, those canceled before, and those that no worker was there to end.", "ops",
                  (PanelQuery(rate_of("oar_jobs_total", by="outcome"), "{{outcome}}"),
                   PanelQuery("sum (rate(oar_jobs_canceled_waiting_total[$interval]))", "canceled while it waited"),
                   PanelQuery(rate_of("oar_jobs_swept_total", "", "outcome"), "{{outcome}}, no worker")), 6),
            Panel("stack", "Patches a second, by worker", "Decoded tokens.", "ops",
                  (PanelQuery(rate_of("oar_patches_generated_total", by="worker"), "{{worker}}"),), 6),
            Panel("lines", "Pictures and previews a second", "Finished pictures, and half-done ones that were shown.",
                  "ops", (PanelQuery(rate_of("oar_images_generated_total"), "pictures"),
                          PanelQuery(rate_of("oar_previews_total"), "previews")), 6),
        ),
    ),
    Row(
        "Tenants",
        (
            Panel("lines", "Requests, by tenant", "With a valid key: let in, or more than the tenant's rate.", "reqps",
                  (PanelQuery(rate_of("oar_tenant_requests_total", "", "tenant, outcome"), "{{tenant}} {{outcome}}"),),
                  12),
            Panel("lines", "Refused at the door",
                  "Before any route: no valid key, a rate that is used up, a page or a name of elsewhere.", "reqps",
                  (PanelQuery(rate_of("oar_refused_total", "", "code"), "{{code}}"),), 12),
        ),
    ),
    Row(
        "Batching",
        (
            Panel("lines", "Pictures in a step", "Mean and quantile of the pictures that shared a step.", "short",
                  (PanelQuery(mean("oar_batch_rows"), "mean"),
                   PanelQuery(quantile_of("$quantile", "oar_batch_rows"), "q$quantile")), 6),
            Panel("lines", "Occupancy", "Share of the cache slots that a step decoded, by worker.", "percentunit",
                  (PanelQuery(mean("oar_batch_occupancy_ratio", by="worker"), "{{worker}}"),), 6),
            Panel("lines", "Padding waste", "Share of the positions asked of the model that were pads.", "percentunit",
                  (PanelQuery(f"{rate_of('oar_positions_padded_total', by='model')} / "
                         f"{rate_of('oar_positions_queried_total', by='model')}", "{{model}}"),), 4),
            Panel("lines", "Steps a second, by worker", "Engine steps; 0 while jobs run is a stall.", "ops",
                  (PanelQuery(rate_of("oar_steps_total", by="worker"), "{{worker}}"),), 4),
            Panel("lines", "Prefilled tokens a second", "Of prompts, edits and resumed pictures.", "short",
                  (PanelQuery(rate_of("oar_prefill_tokens_total", by="worker"), "{{worker}}"),), 4),
        ),
    ),
    Row(
        "Queue",
        (
            Panel("lines", "Jobs", "Waiting: no worker has them. Depth: those that run, too.", "short",
                  (PanelQuery(f"sum by (model) (oar_queue_depth{{{MODEL}}})", "{{model}} depth"),
                   PanelQuery(f"sum by (model) (oar_queue_waiting{{{MODEL}}})", "{{model}} waiting"))),
            Panel("lines", "Age of the oldest waiting job", "0 while none waits.", "s",
                  (PanelQuery(f"max by (model) (oar_queue_oldest_age_seconds{{{MODEL}}})", "{{model}}"),)),
            latency("Time in the queue", "From acceptance to a worker.", "oar_request_queue_time_seconds"),
        ),
    ),
    Row(
        "Cache and models",
        (
            Panel("lines", "Cache slots", "Held by jobs, and in all. A guided picture holds two.", "short",
                  (PanelQuery(f"sum by (worker) (oar_cache_slots_used{{{ENGINE}}})", "{{worker}} used"),
                   PanelQuery(f"sum by (worker) (oar_cache_slots{{{ENGINE}}})", "{{worker}} total")), 6),
            Panel("lines", "Jobs that run, by worker", "Those that a worker has.", "short",
                  (PanelQuery(f"sum by (worker) (oar_jobs_running{{{ENGINE}}})", "{{worker}}"),), 6),
            Panel("tile", "Cache", "Bytes of all slots of all workers.", "bytes",
                  (PanelQuery(f"sum (oar_cache_bytes{{{ENGINE}}})", "bytes"),), 4),
            Panel("tile", "Model load", "The slowest worker's reading, checking and warming up.", "s",
                  (PanelQuery(f"max (oar_model_load_seconds{{{ENGINE}}})", "seconds"),), 4),
            Panel("tile", "Versions", "Of API and workers; more than one is a rolling update.",
                  "short", (PanelQuery("count (count by (version) (oar_build_info))", "versions"),), 4),
        ),
    ),
    Row(
        "Reliability",
        (
            counts("Leases", "Lost: another worker took the job over. Reclaimed: taken over from another one.",
                   ("oar_lease_lost_total", "lost"), ("oar_jobs_reclaimed_total", "reclaimed")),
            counts("Jobs given up", "Dead letters: their workers died too often. Expired: past their deadline.",
                   ("oar_jobs_dead_lettered_total", "dead letters"), ("oar_jobs_expired_total", "expired")),
            Panel("lines", "Faults and refusals", "HTTP answers of 500 and above, and 429.", "reqps",
                  (PanelQuery(FAULTS, "5xx"),
                   PanelQuery('(sum (rate(oar_http_requests_total{status="429"}[$interval])) or vector(0))', "429"))),
            Panel("lines", "Streams", "Open websockets and event streams.", "short",
                  (PanelQuery("sum (oar_ws_connections)", "websockets"),
                   PanelQuery("sum (oar_sse_connections)", "event streams"))),
            Panel("lines", "Pictures waiting", "For a thread that decodes, encodes or animates them.", "short",
                  (PanelQuery("sum by (work) (oar_pictures_waiting)", "{{work}}"),)),
            Panel("lines", "Replays and slow clients", "Streams that went on, events sent again, clients closed.",
                  "ops", (PanelQuery("sum (rate(oar_ws_resumed_total[$interval]))", "resumed"),
                          PanelQuery("sum (rate(oar_ws_replayed_events_total[$interval]))", "replayed events"),
                          PanelQuery("sum (rate(oar_ws_slow_client_closed_total[$interval]))", "slow clients"))),
            Panel("lines", "Up", "Targets that answer Prometheus; API processes that reach Redis, and may write.",
                  "short", (PanelQuery('sum by (job) (up{job=~"oar-.*"})', "{{job}}"),
                            PanelQuery("sum (oar_redis_up)", "redis"),
                            PanelQuery("sum (oar_redis_writable)", "redis, for writes"))),
            Panel("lines", "Results", "API processes that reach the store; bytes in it.", "short",
                  (PanelQuery("sum (oar_results_up)", "reached"), PanelQuery("max (oar_results_bytes)", "bytes"))),
            Panel("lines", "Results moved", "Jobs moved to the store, and deleted there; writes that failed.", "ops",
                  (PanelQuery(rate_of("oar_results_archived_total", ""), "moved"),
                   PanelQuery(rate_of("oar_results_deleted_total", ""), "deleted"),
                   PanelQuery(rate_of("oar_results_failed_total"), "failed"))),
            Panel("lines", "Callbacks", "Attempts by outcome; callbacks that wait.", "short",
                  (PanelQuery(rate_of("oar_callbacks_total", "", "outcome"), "{{outcome}}"),
                   PanelQuery("max (oar_callbacks_waiting)", "waiting"))),
            Panel("lines", "Use today, by tenant", "Pictures, steps and seconds since midnight UTC.", "short",
                  (PanelQuery("sum by (tenant, unit) (oar_tenant_usage)", "{{tenant}} {{unit}}"),)),
            Panel("lines", "Redis may lose jobs", "A setting of Redis that is not safe; `/ready` says what to set.",
                  "short", (PanelQuery("max by (danger) (oar_redis_unsafe)", "{{danger}}"),)),
            Panel("tile", "Dead letters", "Kept until somebody repeats them: `oar jobs dead`.", "short",
                  (PanelQuery("sum (oar_dead_letters)", "letters"),), 4, 4, (10, 1)),
        ),
    ),
)  # fmt: skip
PANELS = tuple(panel for row in ROWS for panel in row.panels)
