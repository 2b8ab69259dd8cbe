"""Checkpoints, optimiser settings and averages."""

import itertools
from pathlib import Path

import pytest
import torch
from torch import nn

from oar_core.errors import CheckpointError
from oar_core.train.checkpoint import load_tensors, save_tensors
from oar_core.train.ema import Ema
from oar_core.train.optim import OptimConfig, ParamGroup, build_optimizer, learning_rate, set_learning_rate


def test_tensors_and_meta_come_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.safetensors"
    save_tensors(path, {"x": torch.arange(3)}, {"step": 7, "loop": {"betas": [0.9, 0.95]}})
    tensors, meta = load_tensors(path)
    assert tensors["x"].tolist() == [0, 1, 2]
    assert meta == {"step": 7, "loop": {"betas": [0.9, 0.95]}}
    assert [entry.name for entry in path.parent.iterdir()] == ["a.safetensors"]


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        load_tensors(tmp_path / "none")


def test_the_rate_warms_up_and_falls_to_its_floor() -> None:
    config = OptimConfig(lr=1.0, warmup_share=0.1, final_lr_share=0.05)
    rates = [learning_rate(config, step, 1000) for step in range(1001)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == rates[99] == pytest.approx(1.0)
    assert rates[1000] == pytest.approx(0.05)
    assert all(a >= b for a, b in itertools.pairwise(rates[100:]))


def test_only_matrices_are_decayed_and_groups_scale_the_rate() -> None:
    linear = nn.Linear(2, 3)
    optimizer = build_optimizer([ParamGroup(list(linear.parameters()), lr_scale=0.5)], OptimConfig(weight_decay=0.1))
    set_learning_rate(optimizer, 2.0)
    decays = {group["params"][0].ndim: (group["weight_decay"], group["lr"]) for group in optimizer.param_groups}
    assert decays == {2: (0.1, 1.0), 1: (0.0, 1.0)}


def test_a_group_may_have_moments_of_its_own() -> None:
    groups = [ParamGroup(list(nn.Linear(2, 3).parameters()), betas=betas) for betas in (None, (0.0, 0.99))]
    optimizer = build_optimizer(groups, OptimConfig(betas=(0.8, 0.95)))
    assert [group["betas"] for group in optimizer.param_groups] == [(0.8, 0.95)] * 2 + [(0.0, 0.99)] * 2


def test_the_average_follows_and_buffers_are_copied() -> None:
    module = nn.BatchNorm1d(2)
    ema = Ema(module, decay=0.9)
    with torch.no_grad():
        module.weight.fill_(3.0)
    module.running_mean = torch.full((2,), 5.0)
    for step in range(1, 200):
        ema.update(module, step)
    torch.testing.assert_close(ema.shadow["weight"], torch.full((2,), 3.0))
    assert ema.shadow["running_mean"].tolist() == [5.0, 5.0]
