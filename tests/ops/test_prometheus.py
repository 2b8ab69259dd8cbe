"""A real Prometheus scrapes a real server under a small load, and every query of dashboard and alerts is asked."""

import math
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.panels import PANELS, VARIABLES, PanelQuery, fill
from tests.ops.load import OfferedLoad
from tests.ops.prometheus import Prometheus, find_prometheus
from tests.ops.test_dashboard import RULES
from tests.ports import free_port
from tests.server.live import LiveServer
from tests.server.tiny import PROMPTS, write_tiny_weights
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(
    find_prometheus() is None, reason="no binary `prometheus` (Debian: apt-get install prometheus)"
)

ROOT = Path(__file__).parents[2]
RULES_FILE = ROOT / "docker/prometheus/rules.yml"
VALUES = {"model": ".*", "worker": ".*", "quantile": "0.95", "interval": "30s"}
QUERIES = [(panel.title, query) for panel in PANELS for query in panel.queries]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """After a few seconds of load, as the worker's own port and the API tell it."""
    weights, folder, port = tmp_path_factory.mktemp("weights"), tmp_path_factory.mktemp("prometheus"), free_port()
    write_tiny_weights(weights)
    options = {"OAR_WORKER_METRICS_PORT": str(port), "OAR_METRICS_WORKERS": "false"}
    with LiveServer(tmp_path_factory.mktemp("live"), weights, **options) as live:
        jobs = {"oar-api": [live.url.removeprefix("http://")], "oar-worker": [f"127.0.0.1:{port}"]}
        with Prometheus(folder, jobs, RULES_FILE) as prometheus:
            wait_for(lambda: len(prometheus.query("up == 1")) == 2)
            load = OfferedLoad(live.url, PROMPTS, steps=8)
            load.run(seconds=4, jobs_a_second=6)
            assert load.num_completed > 0
            yield prometheus


@pytest.mark.parametrize(("title", "query"), QUERIES, ids=[f"{title}-{query.legend}" for title, query in QUERIES])
def test_every_panel_has_data(prometheus: Prometheus, title: str, query: PanelQuery) -> None:
    def has_data() -> bool:
        return any(math.isfinite(series["value"]) for series in prometheus.query(fill(query.expr, **VALUES)))

    wait_for(has_data)  # a rate needs two scrapes


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_every_alert_is_evaluated(prometheus: Prometheus, rule: dict[str, str]) -> None:
    (known,) = [known for known in prometheus.rules() if known["name"] == rule["alert"]]
    assert known["health"] == "ok", known
    prometheus.query(rule["expr"])


def test_no_alert_fires_while_all_is_well(prometheus: Prometheus) -> None:
    states = {known["name"]: known["state"] for known in prometheus.rules()}
    assert "firing" not in states.values(), states


def test_the_variables_have_values(prometheus: Prometheus) -> None:
    assert {series["metric"]["model"] for series in prometheus.query("oar_cache_slots")} == {"tiny"}
    assert all(variable.query or variable.default in variable.choices for variable in VARIABLES)
    assert len({series["metric"]["worker"] for series in prometheus.query("oar_cache_slots")}) == 1


def test_the_workers_are_not_counted_twice(prometheus: Prometheus) -> None:
    assert len(prometheus.query("oar_cache_slots")) == 1
    assert prometheus.query("sum(oar_fleet_exporter)")[0]["value"] == 1


def test_the_phases_of_a_job_add_up(prometheus: Prometheus) -> None:
    """Queue, prefill, decode and encode are the whole but for what lies between them."""
    phases = ("request_queue", "request_prefill", "request_decode", "image_encode")
    names = "|".join(f"oar_{phase}_time_seconds_sum" for phase in phases)
    parts = prometheus.query(f'sum({{__name__=~"{names}"}})')[0]["value"]
    whole = prometheus.query("sum(oar_e2e_request_latency_seconds_sum)")[0]["value"]
    assert parts < 1.5 * whole


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no binary `promtool`")
def test_promtool_finds_no_fault() -> None:
    for words in (["rules", "rules.yml"], ["config", "prometheus.yml"]):
        done = subprocess.run(
            ["promtool", "check", *words], cwd=RULES_FILE.parent, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
