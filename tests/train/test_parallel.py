"""Processes that train together do as one that has all their shards."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from oar_core.errors import CheckpointError, ConfigError
from oar_core.train import precision
from oar_core.train.checkpoint import load_tensors
from oar_core.train.loop import Curve, train
from oar_core.train.parallel import Processes, shards_of
from oar_core.train.run import Run
from oar_core.train.stages.order_distill import load_orders
from tests.train.processes import sharded, train_all
from tests.train.test_families import adopted, class_folder
from tests.train.test_loop import CONFIG, CPU, Regression
from tests.waiting import HANG_SECONDS

__all__ = ["class_folder"]

STAGES = ("order_finetune", "order_finetune-policy")


def curve(run: Run, stage: str) -> list[dict[str, float]]:
    rows = Curve(run.folder / stage / "curve.csv", first_step=1 << 30).rows()
    return [{name: float(value) for name, value in row.items()} for row in rows]


def start(run: Run, count: int) -> None:
    """`torchrun` on this machine alone."""
    words = ["--standalone", "--nproc-per-node", str(count), "-m", "tests.train.processes"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *words, str(run.folder), str(run.data)],
        env=environment,
        check=True,
        timeout=HANG_SECONDS,
    )


def test_two_processes_have_the_losses_of_one(
    class_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_faster_on_cpu", lambda: torch.float32)
    alone, together = (adopted("lpd", class_folder, tmp_path / name) for name in ("alone", "together"))
    train_all(replace(alone, recipe=sharded(2)))
    start(together, 2)
    assert torch.equal(load_orders(alone.orders_folder).orders, load_orders(together.orders_folder).orders)
    for stage in STAGES:
        wanted, found = curve(alone, stage), curve(together, stage)
        assert len(found) == len(wanted) == 6
        for one, other in zip(wanted, found):
            assert other == pytest.approx(one, rel=1e-3, abs=1e-4)
        tensors = [load_tensors(run.folder / stage / "checkpoint.safetensors") for run in (alone, together)]
        assert tensors[0][1] == tensors[1][1], "one may go on from where the other stopped"
        for name, value in tensors[0][0].items():
            torch.testing.assert_close(tensors[1][0][name], value, atol=1e-4, rtol=1e-3)


def test_shards_of_a_batch_are_shared_out() -> None:
    batch = torch.arange(12)
    found = [shards_of(batch, 4, Processes(rank, 2)) for rank in range(2)]
    assert [[number for number, _ in shards] for shards in found] == [[0, 2], [1, 3]]
    assert torch.equal(torch.cat([part for shards in found for _, part in shards]).sort().values, batch)


def test_shards_have_noise_of_their_own_and_add_up_to_a_step(tmp_path: Path) -> None:
    whole = train(Regression(), CONFIG, tmp_path / "whole", CPU)
    parts = train(Regression(), replace(CONFIG, num_shards=4), tmp_path / "parts", CPU)
    one, other = (load_tensors(path)[0]["module/weight"] for path in (whole, parts))
    assert not torch.equal(one, other)
    torch.testing.assert_close(one, other, atol=0.02, rtol=0)


def test_a_batch_is_divided_evenly_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a batch of 8 cannot be divided into 3 equal shards"):
        replace(CONFIG, num_shards=3)
    whole = Regression()
    whole.can_shard = False
    with pytest.raises(ConfigError, match="looks at a batch as a whole"):
        train(whole, replace(CONFIG, num_shards=2), tmp_path, CPU)


def test_a_run_does_not_go_on_with_other_shards(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(Regression(4), CONFIG, tmp_path, CPU)
    with pytest.raises(CheckpointError, match="another config"):
        train(Regression(), replace(CONFIG, num_shards=2), tmp_path, CPU)
