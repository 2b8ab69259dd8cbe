"""Every benchmark runs on a tiny model and tells a table, then one JSON line."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from oar_core.bench.clock import Clock, quantile
from oar_core.bench.table import table
from oar_core.cli.bench import bench
from tests.server.tiny import write_tiny_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_tiny_weights(folder)
    return folder


def told(weights: Path, *words: str) -> dict:
    result = CliRunner().invoke(bench, [words[0], "--weights", str(weights), "--device", "cpu", *words[1:]])
    assert result.exit_code == 0, result.output
    *lines, last = result.output.splitlines()
    assert lines[0].startswith("| ")
    return json.loads(last)


def test_the_roofline_tells_each_part(weights, monkeypatch):
    monkeypatch.setattr("oar_core.bench.roofline.BANDWIDTH_BYTES", 1 << 20)
    monkeypatch.setattr("oar_core.bench.roofline.MATRIX_SIDE", 64)
    report = told(weights, "roofline", "--batch", "2", "--steps", "4", "--repeats", "1")
    assert report["batch"] == 2
    assert {part["name"] for part in report["parts"]} >= {"prefill", "step", "decode", "PNG"}
    assert all(part["measured_ms"] > 0 for part in report["parts"])
    assert {rate["dtype"] for rate in report["rates"]} == {"float32", "bfloat16"}


def test_batching_tells_the_ratio(weights):
    report = told(weights, "batching", "--images", "2", "--steps", "2", "--repeats", "1")
    assert report["ratio"] == pytest.approx(report["at_once_seconds"] / report["one_by_one_seconds"])


def test_a_table_has_a_line_for_each_row():
    lines = table(("name", "value"), [("a", 1234.5), ("b", 0.012345)]).splitlines()
    assert lines == ["| name | value |", "| --- | --- |", "| a | 1234 |", "| b | 0.0123 |"]


def test_quantiles_are_values_that_were_measured():
    values = [float(value) for value in range(1, 101)]
    assert [quantile(values, share) for share in (0.5, 0.95, 1.0)] == [50, 95, 100]
    assert quantile([3.0], 0.99) == 3.0


def test_one_thread_is_measured_by_its_own_time():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert Clock(torch.device("cpu")).name == "cpu"
        torch.set_num_threads(2)
        assert Clock(torch.device("cpu")).name == "wall"
    finally:
        torch.set_num_threads(before)
