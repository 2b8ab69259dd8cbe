"""Every benchmark runs on a tiny model and tells a table, then one JSON line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from oar_cli.bench import bench
from oar_core.config import BackboneConfig, TokenizerConfig
from oar_core.engine.config import EngineConfig
from oar_core.engine.engine import Engine
from oar_core.order.plan import PlanSpec
from oar_core.sampling.generate import generate
from oar_core.sampling.request import SequenceRequest
from oar_core.sampling.sampler import SamplingParams
from oar_core.train.recipes import RECIPES, find_recipe
from oar_lab.bench import peak
from oar_lab.bench.clock import Clock, quantile
from oar_lab.bench.eager import as_trained
from oar_lab.bench.peak import Bound, find_peaks
from oar_lab.bench.replay import CONTINUOUS, MANNERS, ONE, STATIC, replay
from oar_lab.bench.subject import Subject
from oar_lab.bench.table import table
from tests.engine.backbones import UNCONDITIONAL, HashBackbone

TINY_TOKENIZER = TokenizerConfig(image_size=(16, 20), widths=(8, 16), head_width=8, vocab_size=24, code_width=4)
TINY = BackboneConfig(grid=(4, 5), vocab_size=24, condition_vocab=40, max_condition=32, width=32, num_heads=2)


def told(weights_dir: Path, *words: str) -> dict:
    result = CliRunner().invoke(bench, [words[0], "--weights", str(weights_dir), "--device", "cpu", *words[1:]])
    assert result.exit_code == 0, result.output
    *lines, last = result.output.splitlines()
    assert lines[0].startswith("| ")
    return json.loads(last)


def test_the_roofline_tells_each_part(weights_dir, monkeypatch):
    monkeypatch.setattr("oar_lab.bench.roofline.BANDWIDTH_BYTES", 1 << 20)
    monkeypatch.setattr("oar_lab.bench.roofline.MATRIX_SIDE", 64)
    report = told(weights_dir, "roofline", "--batch", "2", "--steps", "4", "--repeats", "1")
    assert report["batch"] == 2
    assert {part["name"] for part in report["parts"]} >= {"prefill", "step", "of it: linear layers", "decode", "PNG"}
    assert all(part["measured_ms"] > 0 for part in report["parts"])
    assert all(part["matrix_share"] > 0 for part in report["parts"] if part["gflop"])
    assert {rate["dtype"] for rate in report["rates"]} == {"float32", "bfloat16", "int8"}


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_the_roofline_compares_with_the_rate_of_the_number_format(weights_dir, monkeypatch, dtype):
    monkeypatch.setattr("oar_lab.bench.roofline.BANDWIDTH_BYTES", 1 << 20)
    monkeypatch.setattr("oar_lab.bench.roofline.MATRIX_SIDE", 64)
    report = told(weights_dir, "roofline", "--batch", "1", "--steps", "4", "--repeats", "1", "--dtype", dtype)
    rates = {(rate["dtype"], rate["threads"]): rate["gflops"] for rate in report["rates"]}
    step = next(part for part in report["parts"] if part["name"] == "step")
    rate = rates[dtype, report["setting"]["threads"]]
    assert step["matrix_share"] == pytest.approx(step["gflop"] / rate / (1e-3 * step["measured_ms"]))


def test_the_roofline_of_steps_alone(weights_dir, monkeypatch):
    monkeypatch.setattr("oar_lab.bench.roofline.BANDWIDTH_BYTES", 1 << 20)
    monkeypatch.setattr("oar_lab.bench.roofline.MATRIX_SIDE", 64)
    report = told(weights_dir, "roofline", "--batch", "1", "--steps", "4", "--repeats", "1", "--step-alone")
    names = ["step", *(f"of it: {part}" for part in ("commit", "query", "linear layers", "sampling"))]
    assert [part["name"] for part in report["parts"]] == names
    assert report["calibration"]["dtype"] in {"float32", "bfloat16"}


def test_batching_tells_the_ratio(weights_dir):
    report = told(weights_dir, "batching", "--images", "2", "--steps", "2", "--repeats", "1")
    assert report["ratio"] == pytest.approx(report["at_once_seconds"] / report["one_by_one_seconds"])


def test_the_plain_loop_is_compared_with_the_engine_in_each_number_format(weights_dir):
    report = told(weights_dir, "eager", "--batch", "2", "--steps", "3", "--repeats", "1", "--dtype", "int8")
    assert [(row["name"], row["dtype"]) for row in report["rows"]] == [
        ("generate", "float32"),
        ("engine", "float32"),
        ("engine", "int8"),
    ]
    assert report["rows"][0]["times_eager"] == 1
    assert report["steps"] == 3


def test_the_plain_loop_has_the_networks_as_they_were_trained(weights_dir):
    subject = Subject.of_model(weights_dir, None, "cpu", torch.float32)
    backbone, tokenizer = as_trained(subject)
    assert all(linear.weight.is_contiguous() for linear in backbone.modules() if isinstance(linear, nn.Linear))
    assert any(isinstance(module, nn.Conv2d) for module in tokenizer.modules())
    requests = subject.requests(2)
    expected = generate(subject.backbone, requests, subject.unconditional_ids)
    assert generate(backbone, requests, subject.unconditional_ids) == expected


def test_throughput_has_a_row_for_each_batch(weights_dir):
    report = told(weights_dir, "throughput", "--batch", "1", "--batch", "3", "--steps", "2", "--repeats", "1")
    assert [(row["batch"], row["images_per_second"] * row["seconds"]) for row in report["rows"]] == [
        (1, pytest.approx(1)),
        (3, pytest.approx(3)),
    ]


def test_arrivals_serve_every_picture_both_ways(weights_dir, monkeypatch):
    monkeypatch.setattr(peak, "HALVINGS", 2)  # how well peaks are found is the next test's concern
    report = told(
        weights_dir,
        "arrivals",
        "--images",
        "9",
        "--slots",
        "4",
        "--load",
        "0.5",
        "--load",
        "3",
        "--bound",
        "99",
        "--seconds",
        "0.05",
    )
    assert [(row["batching"], row["load"]) for row in report["rows"]] == [
        ("static", 0.5),
        ("continuous", 0.5),
        ("static", 3),
        ("continuous", 3),
    ]
    for row in report["rows"]:
        assert 0 < row["first_patch_p50"] <= row["p50"] <= row["p95"] <= row["p99"]
        assert row["goodput"] > 0
    assert report["steps"] == [2, 5, 10, 20]
    assert [row["batching"] for row in report["peaks"]] == 2 * ["one at a time", "static", "continuous"]
    assert [row["bound"] for row in report["peaks"][::3]] == ["99 x the longest alone", "99 x itself alone"]


def make_hashed(steps: int, name: str = "a") -> SequenceRequest:
    return SequenceRequest(name, (1,), 0, 0, PlanSpec("raster", steps), SamplingParams())


class StepClock(Clock):
    """A step takes a tenth of a second, whatever it does."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        self._now += 0.1
        return self._now


def test_a_picture_joins_what_runs_or_waits_for_its_end():
    requests = [make_hashed(4, "a"), make_hashed(2, "b")]
    ends = {}
    for manner in MANNERS:
        engine = Engine(HashBackbone(), UNCONDITIONAL, EngineConfig(8))
        ends[manner] = replay(engine, StepClock(), [0.0, 0.05], requests, manner).total
    assert ends[CONTINUOUS] == {"a": pytest.approx(0.4), "b": pytest.approx(0.25)}
    assert ends[STATIC] == ends[ONE] == {"a": pytest.approx(0.4), "b": pytest.approx(0.55)}


def test_a_static_batch_takes_all_that_waits_and_one_at_a_time_does_not():
    requests = [make_hashed(4, name) for name in "abc"]
    ends = {}
    for manner in MANNERS:
        engine = Engine(HashBackbone(), UNCONDITIONAL, EngineConfig(8))
        ends[manner] = list(replay(engine, StepClock(), [0.0] * 3, requests, manner).total.values())
    assert ends[STATIC] == ends[CONTINUOUS] == pytest.approx([0.4, 0.4, 0.4])
    assert ends[ONE] == pytest.approx([0.4, 0.8, 1.2])


def test_a_replay_gives_up_when_too_many_are_late_and_leaves_an_empty_engine():
    engine = Engine(HashBackbone(), UNCONDITIONAL, EngineConfig(8))
    requests = [make_hashed(4, name) for name in "abc"]
    bounds = dict.fromkeys("abc", 0.5)
    lives = replay(engine, StepClock(), [0.0] * 3, requests, ONE, bounds=bounds, most_late=0)
    assert lives.num_late(bounds) == 1
    assert not engine.has_work
    assert engine.num_free_slots == 8


def test_the_highest_rate_is_found_for_each_manner():
    """One at a time, a picture of four steps is served 2.5 times a second; eight rows share a step of any size."""
    engine = Engine(HashBackbone(), UNCONDITIONAL, EngineConfig(8))
    bound = Bound("all", lambda _: 1.2)

    def make(count: int) -> list[SequenceRequest]:
        return [make_hashed(4, str(number)) for number in range(count)]

    one, static, continuous = find_peaks(engine, StepClock(), make, bound, capacity=20.0, seconds=6, seed=0)
    assert 1 < one.rate < 2.5
    assert one.rate < static.rate < continuous.rate <= 24
    assert continuous.to_static == pytest.approx(continuous.rate / static.rate)
    assert continuous.to_one == pytest.approx(continuous.rate / one.rate)


def test_scoring_every_position_asks_more(weights_dir):
    report = told(weights_dir, "steps", "--batch", "2", "--repeats", "1")
    assert [(row["order"], row["steps"], row["guided"], row["queries"]) for row in report["rows"]] == [
        ("random", 5, "all", 20),
        ("random", 20, "all", 20),
        ("distilled", 5, "all", 20),
        ("distilled", 20, "all", 20),
        ("shortlist", 5, "all", 56),
        ("shortlist", 20, "all", 74),
        ("confidence", 5, "all", 20 + 16 + 12 + 8 + 4),
        ("confidence", 20, "all", 210),
        ("random", 20, "the middle half", 20),
        ("random", 20, "nothing", 20),
    ]


def test_depth_has_a_row_for_each_depth(weights_dir):
    report = told(weights_dir, "depth", "--slots", "4", "--waiting", "0", "--waiting", "5")
    assert [row["waiting"] for row in report["rows"]] == [0, 5]
    assert report["rows"][0]["relative"] == 1.0


def test_a_recipe_is_measured_with_random_weights(monkeypatch):
    usual = find_recipe("sprites-64")
    defaults = replace(usual.defaults, steps=8)
    small = replace(usual, backbone=TINY, tokenizer=TINY_TOKENIZER, text_vocab=8, defaults=defaults)
    monkeypatch.setitem(RECIPES, "sprites-64", lambda: small)
    result = CliRunner().invoke(bench, ["batching", "--recipe", "sprites-64", "--images", "1", "--steps", "4"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output.splitlines()[-1])["model"] == "sprites-64"


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
