"""What teaching costs, computed from sizes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from oar_cli.lab import commands
from oar_core.train.recipes import find_recipe
from oar_lab.training_cost import STATE_BYTES, Machine, taught_cost, usual_backbones
from tests.models.folders import write_golden_model

RECIPE, MACHINE = find_recipe("imported"), Machine()


@pytest.mark.parametrize("name", ["arpg", "lpd", "randar"])
def test_a_pass_takes_two_operations_for_each_weight_that_a_token_meets(name: str) -> None:
    backbone = usual_backbones()[name]
    cost = taught_cost(name, backbone, RECIPE, MACHINE)
    entries = {"arpg": 1, "lpd": 2, "randar": 2}[name]  # of a token in the whole network; ARPG's stacks halve them
    products = 2 * cost.num_parameters * entries * backbone.spec.num_tokens
    assert cost.forward == pytest.approx(products, rel=0.15)
    assert cost.state_gib == pytest.approx(STATE_BYTES * cost.num_parameters / 2**30, rel=0.02)
    fits = cost.state_gib + cost.pictures_a_gpu * cost.picture_mib / 1024
    assert fits < 0.9 * MACHINE.gpu_gib < fits + cost.picture_mib / 1024 + 0.01


def test_hours_go_with_pictures_and_against_gpus() -> None:
    backbone = usual_backbones()["lpd"]
    once = taught_cost("lpd", backbone, RECIPE, MACHINE)
    longer = replace(RECIPE, order_finetune_loop=replace(RECIPE.order_finetune_loop, num_images=12_800_000))
    assert taught_cost("lpd", backbone, longer, MACHINE).finetune_hours == pytest.approx(2 * once.finetune_hours)
    one = replace(MACHINE, num_gpus=1)
    assert taught_cost("lpd", backbone, RECIPE, one).distill_hours == pytest.approx(8 * once.distill_hours)
    tiny = taught_cost("lpd", backbone, RECIPE, replace(MACHINE, gpu_gib=4.0))
    assert tiny.pictures_a_gpu == 0, "not even the weights fit"


def test_the_command_computes_it_for_a_model_and_refuses_one_without_an_order(tmp_path: Path) -> None:
    for name in ("randar", "llamagen"):
        write_golden_model(name, tmp_path / name)
    result = CliRunner().invoke(commands["train"], ["cost", "--model", str(tmp_path / "randar"), "--json"])
    assert result.exit_code == 0, result.output
    (told,) = json.loads(result.stdout)
    assert told["name"] == "randar"
    assert told["num_parameters"] < 1e6
    refused = CliRunner().invoke(commands["train"], ["cost", "--model", str(tmp_path / "llamagen")])
    assert refused.exit_code == 1
    assert "which writes in one order alone" in refused.output
