"""What `/metrics` may say: the list in docs/metrics.md, closed label sets, and one voice for the whole system."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from oar_wire.job import GenerationParams
from oar_wire.model import ModelInfo, WorkerInfo
from server.api.app import create_app
from server.jobs import keys, scripts
from server.jobs.connection import RedisConnection
from server.jobs.dead import DeadLetters
from server.jobs.gauge import ExporterLease, QueueGauge
from server.jobs.queue import JobQueue
from server.jobs.store import Registry
from server.jobs.worker_queue import WorkerQueue
from server.observability.exposition import Labelled, expose, own, published
from server.observability.families import Families
from server.observability.metrics import (
    CALLBACK_OUTCOMES,
    JOB_OUTCOMES,
    METHODS,
    REQUEST_OUTCOMES,
    TENANT_OUTCOMES,
    ApiMetrics,
    FleetMetrics,
    WorkerMetrics,
)
from server.settings import Settings
from tests.server.live import LiveServer
from tests.server.tiny import NAME
from tests.waiting import HANG_SECONDS

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[3]
LABELS = {"unit", "method", "route", "status", "code", "outcome", "tenant", "model", "worker", "work", "danger"}
LABELS |= {"version", "torch", "device", "dtype", "threads"}
WHERE = {"api": ApiMetrics, "fleet": FleetMetrics, "worker": WorkerMetrics}


def params(**changes: object) -> GenerationParams:
    values = {"model": "tiny", "prompt": "x", "seed": 1, "n": 1, "order": "raster", "steps": 3, "group_sizes": "cosine",
              "guidance": 1.0, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "previews": False, **changes}  # fmt: skip
    return GenerationParams.model_validate(values)


def samples(text: str) -> dict[str, list[dict[str, str]]]:
    """The label sets of each sample."""
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def value(text: str, name: str, **labels: str) -> float | None:
    """The sum of the samples of a name with these labels; None where there is none."""
    values = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return sum(values) if values else None


# the list


def test_the_list_of_metrics_is_the_registry() -> None:
    rows = re.findall(
        r"^\| `(oar_\w+)` \| (\w+) \| (.*?) \| (.*?) \| (.*?) \|$", (ROOT / "docs/metrics.md").read_text(), re.M
    )
    listed = {
        (where, name, kind, tuple(re.findall(r"`(\w+)`", labels)), text) for name, kind, where, labels, text in rows
    }
    declared = {
        (where, family.name, family.kind, family.labels, family.text)
        for where, families in WHERE.items()
        for family in families().declared
    }
    assert listed == declared


@pytest.mark.parametrize("families", WHERE.values(), ids=WHERE)
def test_names_keep_to_the_conventions(families: type[Families]) -> None:
    """Seconds and bytes as units, `_total` for counters alone, a sentence for each, and labels from the closed list."""
    for family in families().declared:
        assert family.name.startswith("oar_")
        assert family.name.endswith("_total") == (family.kind == "counter")
        assert not re.search(r"_(ms|milliseconds|minutes|mb|kb|percent|count|sum|bucket)(_|$)", family.name)
        assert family.text
        assert not family.text.endswith(".")
        assert set(family.labels) <= LABELS


def test_counters_of_a_worker_start_at_zero_and_build_info_is_1() -> None:
    metrics = WorkerMetrics(["tiny"])
    metrics.set_build("2.13.0", "cpu", "float32", 2)
    text = expose(own(metrics.registry)).decode()
    for family in metrics.declared:
        if family.kind == "counter":
            assert value(text, family.name, model="tiny") == 0, family.name
    assert value(text, "oar_build_info", torch="2.13.0", device="cpu", dtype="float32") == 1
    assert "_created" not in text


def test_conclusions_are_counted_once() -> None:
    metrics = WorkerMetrics(["tiny"])
    reasons = Counter({"late": 2, "worn_out": 1, "canceled": 3})
    metrics.count_conclusions("tiny", reasons)
    metrics.count_conclusions("tiny", reasons)
    text = expose(own(metrics.registry)).decode()
    assert value(text, "oar_jobs_total", outcome="failed") == 3
    assert value(text, "oar_jobs_total", outcome="canceled") == 3
    assert value(text, "oar_jobs_expired_total") == 2
    assert value(text, "oar_jobs_dead_lettered_total") == 1


# the text


def test_a_family_of_several_sources_is_told_once() -> None:
    """Two `# TYPE` lines of one family are no valid text; the workers' families came after the API's own."""
    workers = {name: WorkerMetrics(["tiny"]) for name in ("a", "b")}
    for name, metrics in workers.items():
        metrics.set_build("2.13.0", "cpu", "float32", 2)
        metrics.patches.labels("tiny").inc(ord(name))
    texts = {name: expose(own(metrics.registry)).decode() for name, metrics in workers.items()}
    text = expose(own(ApiMetrics().registry), *(published(*item) for item in texts.items())).decode()
    heads = re.findall(r"^# TYPE (\w+)", text, re.M)
    assert len(heads) == len(set(heads))
    assert value(text, "oar_patches_generated_total", worker="a") == ord("a")
    assert value(text, "oar_patches_generated_total", worker="b") == ord("b")
    assert {row.get("worker") for row in samples(text)["oar_build_info"]} == {None, "a", "b"}


def test_a_workers_own_port_names_the_worker_as_the_api_does() -> None:
    from prometheus_client import CollectorRegistry, generate_latest

    metrics = WorkerMetrics(["tiny"])
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Labelled(metrics.registry, worker="a"))
    assert samples(generate_latest(registry).decode()) == samples(
        expose(published("a", expose(own(metrics.registry)).decode())).decode()
    )
    metrics.steps.labels("tiny").inc()
    assert value(generate_latest(registry).decode(), "oar_steps_total", worker="a") == 1


# closed label sets


@asynccontextmanager
async def serving(options: Settings) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(options)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client


# What HTTP itself lets through: no surrogates, no line ends.
WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=30)
PATHS = st.one_of(
    st.sampled_from(["/v1/generations", "/v1/models", "/metrics", "/live", "/ready", "/docs", "/"]),
    st.builds("/v1/generations/{}".format, WORDS),
    st.builds("/v1/generations/{}/images/{}".format, WORDS, st.integers()),
    st.builds("/v1/models/{}".format, WORDS),
    st.builds("/{}".format, WORDS),
)
PAGES = ("/", "/studio/{name}", "/docs", "/docs/{name}", "/redoc", "/openapi.json", "/asyncapi.json")
BODIES = st.one_of(
    st.none(),
    st.dictionaries(st.sampled_from(["prompt", "model", "seed", "order", "n", "user", "x"]), WORDS | st.integers()),
)


@given(
    requests=st.lists(
        st.tuples(st.sampled_from([*sorted(METHODS), "BREW", "PROPFIND"]), PATHS, BODIES, WORDS), min_size=1, max_size=4
    )
)
@settings(max_examples=25, deadline=None)
def test_no_client_can_make_a_label(live: LiveServer, requests: list[tuple[str, str, object, str]]) -> None:
    for method, path, body, word in requests:
        headers = {"Idempotency-Key": quote(word), "User-Agent": quote(word)}
        live.client.request(method, quote(path), json=body, headers=headers)
    text = live.client.get("/metrics").text
    closed = {
        "method": {*METHODS, "other"},
        "route": {*create_app(Settings()).openapi()["paths"], *PAGES, "unmatched"},
        "status": {str(status) for status in range(100, 600)},
        "outcome": {*REQUEST_OUTCOMES, *JOB_OUTCOMES, *TENANT_OUTCOMES, *CALLBACK_OUTCOMES},
        "model": {NAME},
        "worker": {row["worker"] for row in samples(text)["oar_steps_total"]},
    }
    assert len(closed["worker"]) == 1
    for name, rows in samples(text).items():
        for labels in rows:
            assert set(labels) <= {*LABELS, "le"}, name
            for label, allowed in closed.items():
                assert labels.get(label, next(iter(allowed))) in allowed, (name, labels)


# one voice


async def test_of_two_apis_one_speaks_for_the_queue(
    connection: RedisConnection, settings: Settings, model_info: ModelInfo
) -> None:
    """Each replica told the depth of the queue, so that the sum that scales the workers was the replicas' multiple."""
    registry = Registry(connection)
    await registry.publish_models([model_info], {}, 60)
    worker = WorkerMetrics(["tiny"])
    worker.patches.labels("tiny").inc(5)
    await registry.workers.beat(WorkerInfo(name="w", models=("tiny",), slots=4), ttl=30)
    await registry.workers.publish_metrics("w", expose(own(worker.registry)).decode(), ttl=30)
    await JobQueue(connection, settings).submit(params())
    options = settings.model_copy(update={"metrics_lease": 30.0})
    async with serving(options) as one, serving(options) as other:
        for _ in range(2):
            texts = [(await client.get("/metrics")).text for client in (one, other)]
            assert [value(text, "oar_queue_depth", model="tiny") for text in texts] == [1, None]
            assert [value(text, "oar_patches_generated_total", worker="w") for text in texts] == [5, None]
            assert [value(text, "oar_fleet_exporter") for text in texts] == [1, 0]
            assert [value(text, "oar_redis_up") for text in texts] == [1, 1]
        everything = (await other.get("/metrics?all=1")).text
        assert value(everything, "oar_queue_depth", model="tiny") == 1
        assert value(everything, "oar_workers", model="tiny") == 1
        assert value((await other.get("/metrics")).text, "oar_queue_depth") is None, "looking took the lease"
    assert await connection.once("EXISTS", keys.EXPORTER) == 0, "a stopping process gives the lease back"


async def test_workers_that_are_scraped_themselves_are_not_repeated(
    connection: RedisConnection, settings: Settings, model_info: ModelInfo
) -> None:
    registry = Registry(connection)
    await registry.publish_models([model_info], {}, 60)
    await registry.workers.beat(WorkerInfo(name="w", models=("tiny",), slots=4), ttl=30)
    await registry.workers.publish_metrics("w", expose(own(WorkerMetrics(["tiny"]).registry)).decode(), ttl=30)
    async with serving(settings.model_copy(update={"metrics_workers": False})) as client:
        text = (await client.get("/metrics")).text
    assert value(text, "oar_patches_generated_total") is None
    assert value(text, "oar_workers", model="tiny") == 1


async def test_the_lease_passes_on_when_its_holder_is_gone(connection: RedisConnection) -> None:
    first, second = ExporterLease(connection, 30), ExporterLease(connection, 30)
    assert await first.hold()
    assert not await second.hold()
    await second.release()
    assert await first.hold(), "only the holder can let go"
    await first.release()
    assert await second.hold()
    await connection.once("DEL", keys.EXPORTER)  # as if it had expired
    assert await first.hold()
    assert not await second.hold()


async def test_the_gauge_tells_waiting_jobs_from_running_ones(connection: RedisConnection, settings: Settings) -> None:
    gauge, queue = QueueGauge(connection), JobQueue(connection, settings)
    assert await gauge.read("tiny") == await gauge.read("other")
    assert ((facts := await gauge.read("tiny")).depth, facts.waiting, facts.oldest_age) == (0, 0, 0)
    worker = WorkerQueue(connection, settings, "w", "tiny")
    for _ in range(3):
        await queue.submit(params())
    facts = await gauge.read("tiny")
    assert (facts.depth, facts.waiting) == (3, 3), "before the first worker made its group"
    await worker.open()
    await asyncio.sleep(0.02)
    item = await worker.take(0.1)
    assert item is not None
    claim = await worker.claim(item)
    assert claim is not None
    facts = await gauge.read("tiny")
    assert (facts.depth, facts.waiting) == (3, 2)
    assert facts.oldest_age > 0
    assert await scripts.run_many(connection, [worker.calls.release(claim)]) == [1]
    facts = await gauge.read("tiny")
    assert (facts.depth, facts.waiting) == (3, 3), "what was handed back waits again"


async def test_the_worker_counts_jobs_that_ended_before_they_began(
    connection: RedisConnection, settings: Settings
) -> None:
    late = settings.model_copy(update={"job_deadline": 0.001})
    worker = WorkerQueue(connection, late, "w", "tiny")
    await worker.open()
    await JobQueue(connection, late).submit(params())
    await asyncio.sleep(0.01)
    item = await worker.take(0.1)
    assert item is not None
    assert await worker.claim(item) is None
    assert worker.concluded == {"late": 1}


async def test_the_gauge_adds_up_all_priorities(connection: RedisConnection, settings: Settings) -> None:
    """It read the queue of one priority, when there were three: what scales the workers missed the others' jobs."""
    queue, gauge = JobQueue(connection, settings), QueueGauge(connection)
    worker = WorkerQueue(connection, settings, "w", "tiny")
    await worker.open()
    for priority in keys.PRIORITIES:
        await queue.submit(params(priority=priority))
    facts = await gauge.read("tiny")
    assert (facts.depth, facts.waiting) == (3, 3)
    taken = [await worker.take(0.1) for _ in range(2)]
    assert [job and job.priority for job in taken] == ["high", "normal"]
    facts = await gauge.read("tiny")
    assert (facts.depth, facts.waiting) == (3, 1)


# what is counted where


async def test_what_the_sweeper_ends_is_counted(
    connection: RedisConnection, settings: Settings, model_info: ModelInfo
) -> None:
    """A queued job past its deadline, and a canceled one whose worker died; no worker could count either."""
    quick = settings.model_copy(update={"sweep_seconds": 0.05, "lease_seconds": 0.1})
    await Registry(connection).publish_models([model_info], {}, 60)
    worker, queue = WorkerQueue(connection, quick, "w", "tiny"), JobQueue(connection, quick)
    await worker.open()
    canceled = await queue.submit(params())
    taken = await worker.take(0.1)
    assert taken is not None
    assert await worker.claim(taken) is not None
    await queue.cancel(await queue.load(canceled.job_id))
    late = await queue.submit(params(deadline=0.05))
    async with serving(quick) as client:
        text = (await client.get("/metrics")).text
        assert value(text, "oar_jobs_swept_total", outcome="failed") is not None, "known from the first event on"
        for submitted in (canceled, late):
            async with asyncio.timeout(HANG_SECONDS):
                while not (await queue.load(submitted.job_id)).state.is_terminal:
                    await asyncio.sleep(0.05)
        async with asyncio.timeout(HANG_SECONDS):
            while value(text := (await client.get("/metrics")).text, "oar_jobs_swept_total") != 2:
                await asyncio.sleep(0.05)
    assert value(text, "oar_jobs_swept_total", outcome="failed") == 1
    assert value(text, "oar_jobs_swept_total", outcome="canceled") == 1


async def test_dead_letters_are_counted_until_they_are_removed(
    connection: RedisConnection, settings: Settings, model_info: ModelInfo
) -> None:
    options = settings.model_copy(update={"max_attempts": 1, "lease_seconds": 0.05})
    await Registry(connection).publish_models([model_info], {}, 60)
    worker = WorkerQueue(connection, options, "w", "tiny")
    await worker.open()
    job = await JobQueue(connection, options).submit(params())
    async with asyncio.timeout(HANG_SECONDS):
        while (taken := await worker.take(0.1)) is None:
            pass
    assert await worker.claim(taken) is not None
    (taken,) = await worker.unfinished()  # as it is after a restart
    assert await worker.claim(taken) is None
    assert worker.concluded == {"worn_out": 1}
    async with serving(options) as client:
        assert value((await client.get("/metrics?all=1")).text, "oar_dead_letters") == 1
        letters = DeadLetters(connection)
        letter = await letters.find(job.job_id)
        assert letter is not None
        await letters.remove(letter)
        assert value((await client.get("/metrics?all=1")).text, "oar_dead_letters") == 0


async def test_a_cancel_before_a_worker_has_the_job_is_counted_once(
    connection: RedisConnection, settings: Settings, model_info: ModelInfo
) -> None:
    await Registry(connection).publish_models([model_info], {}, 60)
    await Registry(connection).workers.beat(WorkerInfo(name="w", models=("tiny",), slots=4), ttl=30)
    async with serving(settings) as client:
        job = (await client.post("/v1/generations", json={"prompt": "x"})).json()
        for _ in range(2):
            assert (await client.delete(job["url"])).json()["status"] == "canceled"
        text = (await client.get("/metrics")).text
    assert value(text, "oar_jobs_canceled_waiting_total") == 1
    assert value(text, "oar_requests_total", outcome="accepted") == 1
    assert value(text, "oar_http_request_duration_seconds_count", route="/v1/generations") == 1


def test_a_stream_that_goes_on_is_counted_with_what_it_is_sent_again(live: LiveServer) -> None:
    job = live.post(wait=60).json()
    names = ("oar_ws_resumed_total", "oar_ws_replayed_events_total")
    before = [value(live.client.get("/metrics").text, name) or 0 for name in names]
    events = live.events(job["id"], after=2)
    after = [value(live.client.get("/metrics").text, name) or 0 for name in names]
    assert [now - then for now, then in zip(after, before)] == [1, len(events)]
