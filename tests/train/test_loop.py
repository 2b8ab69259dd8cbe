"""The training loop: epochs, and runs that were killed."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from oar_core.errors import CheckpointError
from oar_core.train.checkpoint import load_tensors
from oar_core.train.loop import Curve, LoopConfig, Step, _batches, train
from oar_core.train.optim import ParamGroup
from tests.waiting import wait_for

CPU = torch.device("cpu")
CONFIG = LoopConfig(num_images=80, batch_size=8, log_every=1, checkpoint_every=3)


class Regression:
    """Learns a fixed linear map under noise that comes from the step's own generator."""

    can_shard = True

    def __init__(self, die_at: int | None = None) -> None:
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(20, 4, generator=generator)
        self.targets = self.inputs @ torch.randn(4, 2, generator=generator)
        linear = nn.Linear(4, 2)
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
        self.module: nn.Module = linear
        self.die_at = die_at

    def __len__(self) -> int:
        return len(self.inputs)

    def param_groups(self) -> list[ParamGroup]:
        return [ParamGroup(list(self.module.parameters()))]

    def before_step(self, step: Step) -> None:
        if step.number == self.die_at:
            raise KeyboardInterrupt

    def loss(self, indices: Tensor, step: Step) -> dict[str, Tensor]:
        noise = torch.randn(len(indices), 2, generator=step.generator)
        error = self.module(self.inputs[indices]).float() + 0.01 * noise - self.targets[indices]
        return {"total": error.square().mean()}


def test_each_epoch_shows_every_picture_once() -> None:
    config = replace(CONFIG, batch_size=8, num_images=40)
    seen = torch.cat(list(_batches(20, config, first_step=0)))
    assert sorted(seen[:20].tolist()) == list(range(20))
    assert sorted(seen[20:].tolist()) == list(range(20))
    assert seen[:20].tolist() != seen[20:].tolist()


def test_batches_may_start_at_any_step() -> None:
    whole = list(_batches(20, CONFIG, first_step=0))
    for first in range(len(whole)):
        assert all(torch.equal(a, b) for a, b in zip(whole[first:], _batches(20, CONFIG, first_step=first)))


@pytest.mark.parametrize("die_at", [1, 3, 4, 9])
def test_an_interrupted_run_ends_as_the_uninterrupted_one(tmp_path: Path, die_at: int) -> None:
    whole = train(Regression(), CONFIG, tmp_path / "whole", CPU)
    with pytest.raises(KeyboardInterrupt):
        train(Regression(die_at), CONFIG, tmp_path / "broken", CPU)
    broken = train(Regression(), CONFIG, tmp_path / "broken", CPU)
    assert (tmp_path / "whole" / "curve.csv").read_text() == (tmp_path / "broken" / "curve.csv").read_text()
    expected, actual = load_tensors(whole)[0], load_tensors(broken)[0]
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    path = train(Regression(), CONFIG, tmp_path / "run", CPU)
    before = path.read_bytes()
    train(Regression(), CONFIG, tmp_path / "run", CPU)
    assert path.read_bytes() == before


def test_a_checkpoint_of_another_config_is_refused(tmp_path: Path) -> None:
    train(Regression(), CONFIG, tmp_path / "run", CPU)
    with pytest.raises(CheckpointError, match="another config"):
        train(Regression(), replace(CONFIG, batch_size=4), tmp_path / "run", CPU)


def test_the_loss_falls(tmp_path: Path) -> None:
    config = replace(CONFIG, num_images=2400, optim=replace(CONFIG.optim, lr=3e-2))
    train(Regression(), config, tmp_path / "run", CPU)
    losses = [float(row["total"]) for row in Curve(tmp_path / "run" / "curve.csv", first_step=10**9).rows()]
    assert losses[-1] < losses[0] / 20


def test_kill_9_in_a_real_tokenizer_run_leaves_the_curve_of_an_unbroken_one(
    tmp_path: Path, picture_folder: Path
) -> None:
    """The whole process is killed as soon as its first checkpoint is there, then the run is started again."""
    script = Path(__file__).parent / "tokenizer_run.py"

    def start(folder: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, str(script), str(picture_folder), str(folder)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.DEVNULL,
        )

    assert start(tmp_path / "whole").wait() == 0
    victim = start(tmp_path / "broken")
    checkpoint = tmp_path / "broken" / "tokenizer" / "checkpoint.safetensors"
    wait_for(lambda: checkpoint.exists() or victim.poll() is not None)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert start(tmp_path / "broken").wait() == 0
    curves = [(tmp_path / name / "tokenizer" / "curve.csv").read_text() for name in ("whole", "broken")]
    assert curves[0] == curves[1]
    assert curves[0].count("\n") == 13
