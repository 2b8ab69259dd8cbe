"""The plain loops draw what the engine draws, and the benchmarks that compare them tell a table, then one JSON line."""

import json

import pytest
import torch
from click.testing import CliRunner

from oar_cli.bench import bench
from oar_core.errors import ConfigError
from oar_core.order.plan import PlanSpec
from oar_core.sampling.generate import generate
from oar_core.sampling.request import SequenceRequest
from oar_core.sampling.sampler import SamplingParams
from oar_lab.bench.families import PLAIN, plain_work
from oar_lab.bench.plain import PLAIN_LOOPS
from oar_lab.bench.sized import conditions_of, sized_network


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def told(*words: str) -> dict:
    result = CliRunner().invoke(bench, words)
    assert result.exit_code == 0, result.output
    *lines, last = result.output.splitlines()
    assert lines[0].startswith("| ")
    return json.loads(last)


@pytest.mark.parametrize("key", PLAIN_LOOPS)
def test_a_plain_loop_is_the_family(key):
    """Of the likeliest codes, since the two have different noise."""
    sized = sized_network(key, "tiny")
    backbone, defaults = sized.backbone, sized.defaults
    for parameter in backbone.parameters():  # random weights of training are so small that all codes are alike
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    is_raster = key in {"llamagen", "janus"}
    steps, groups = (16, "constant") if is_raster else (5, (1, 2, 3, 4, 6))
    plan = PlanSpec(defaults["order"], steps, groups, repulsion=defaults.get("repulsion", 1))
    sampling = SamplingParams(guidance=3.0, top_k=1)
    conditions = conditions_of(sized.requests(3))
    requests = [SequenceRequest(str(n), ids, n, 0, plan, sampling) for n, ids in enumerate(conditions)]
    drawn = plain_work(sized, requests, draw=lambda logits: logits.argmax(-1))()
    wanted = generate(backbone, requests, sized.unconditional_ids)
    assert len(set(wanted)) == 3
    assert [tuple(row) for row in drawn.tolist()] == wanted


def test_families_are_compared_with_the_plain_loop():
    report = told("families", "--family", "lpd", "--family", "oar", "--batch", "2", "--repeats", "1", "--layers", "2")
    assert {row["family"] for row in report["rows"]} == {"lpd", "oar"}
    for row in report["rows"]:
        assert row["seconds"] > 0
        assert (row["linear_gflops"] is None) == (row["way"] == PLAIN)
        assert row["least_times"] <= row["times_plain"] <= row["most_times"]
    assert {(row["family"], row["way"]) for row in report["rows"]} >= {("lpd", "native engine"), ("oar", "engine")}
    assert report["gflops"]["float32"] > 0
    assert report["layers"] == 2
    assert report["setting"]["clock"] == "cpu"
    assert any(row["steps"] == 16 for row in report["rows"])


def test_choices_are_counted():
    report = told("choices", "--family", "lpd", "--starts", "2")
    assert sum(row["starts"] for row in report["rows"]) == 2
    assert min(row["times_best"] for row in report["rows"]) == 1
    assert 1 <= report["right"]["lpd"] <= 2


def test_a_family_that_has_no_loop_is_refused():
    with pytest.raises(ConfigError, match="toy_frames"):
        sized_network("toy_frames", "tiny")
