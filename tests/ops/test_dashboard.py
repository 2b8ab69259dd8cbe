"""The dashboard in git is the one that the code makes; its queries, the alerts and their runbook name what there is."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.dashboard import build_dashboard, place
from ops.panels import GRID, PANELS, ROWS, VARIABLES, fill
from server.observability.metrics import ApiMetrics, FleetMetrics, WorkerMetrics

ROOT = Path(__file__).parents[2]
BOARD = ROOT / "docker/grafana/dashboards/oar.json"
GROUPS: list[dict[str, Any]] = yaml.safe_load((ROOT / "docker/prometheus/rules.yml").read_text())["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
DECLARED = [family for families in (ApiMetrics, FleetMetrics, WorkerMetrics) for family in families().declared]


def series() -> set[str]:
    """The names that queries may use."""
    names = {family.name for family in DECLARED}
    histograms = {family.name for family in DECLARED if family.kind == "histogram"}
    return names - histograms | {f"{name}_{part}" for name in histograms for part in ("bucket", "sum", "count")}


def expressions() -> list[str]:
    panels = [query.expr for panel in PANELS for query in panel.queries]
    return [*panels, *(variable.query for variable in VARIABLES if variable.query), *(rule["expr"] for rule in RULES)]


def test_the_file_is_what_the_code_makes() -> None:
    pytest.importorskip("grafana_foundation_sdk", reason="the extra `ops` is not installed")

    assert BOARD.read_text() == build_dashboard(), "run `make dashboard`"


def test_every_metric_that_is_asked_for_is_exposed() -> None:
    asked = {name for expr in expressions() for name in re.findall(r"\boar_\w+", expr)}
    assert asked <= series(), asked - series()


def test_every_metric_is_shown_or_watched() -> None:
    """A metric that nobody looks at is to be looked at, or not to be made."""
    text = " ".join(expressions())
    assert [family.name for family in DECLARED if family.name not in text] == []


def test_panels_have_names_of_their_own_places_of_their_own_and_units() -> None:
    titles = [panel.title for panel in PANELS]
    assert len(titles) == len(set(titles))
    board = json.loads(BOARD.read_text())
    shown = [panel for panel in board["panels"] if panel["type"] != "row"]
    shown += [panel for row in board["panels"] if row["type"] == "row" for panel in row.get("panels", ())]
    assert {panel["title"] for panel in shown} == set(titles)
    taken: set[tuple[int, int]] = set()
    for panel in shown:
        where = panel["gridPos"]
        cells = {(x, y) for x in range(where["x"], where["x"] + where["w"])
                 for y in range(where["y"], where["y"] + where["h"])}  # fmt: skip
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < GRID
        assert panel["description"]
        taken |= cells
    for row in ROWS:
        assert place(row, 0)[0][1].y == 0


def test_the_board_has_its_variables_and_no_data_source_of_its_own() -> None:
    board = json.loads(BOARD.read_text())
    assert [variable["name"] for variable in board["templating"]["list"]] == [
        "datasource", "model", "worker", "quantile", "interval",
    ]  # fmt: skip
    assert set(re.findall(r'"uid": "([^"]+)"', BOARD.read_text())) == {"${datasource}", "oar-latency"}
    for query in (query for panel in PANELS for query in panel.queries):
        fill(query.expr, model=".*", worker=".*", quantile="0.95", interval="1m")


def test_alerts_have_a_severity_a_sentence_and_a_runbook() -> None:
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs/runbook.md").read_text(), re.M)
    assert [rule["alert"] for rule in RULES] == list(dict.fromkeys(rule["alert"] for rule in RULES))
    assert sorted(headings) == sorted(rule["alert"] for rule in RULES), "a heading for each alert, and no other"
    for rule in RULES:
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
        file, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert (ROOT / file).exists()
        assert anchor == rule["alert"].lower()


def test_what_is_provisioned_is_there() -> None:
    folder = ROOT / "docker/grafana/provisioning"
    (source,) = yaml.safe_load((folder / "datasources/prometheus.yaml").read_text())["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    (provider,) = yaml.safe_load((folder / "dashboards/oar.yaml").read_text())["providers"]
    mounts = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())["services"]["grafana"]["volumes"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in mounts
