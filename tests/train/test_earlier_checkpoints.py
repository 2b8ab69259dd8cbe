"""A training that an earlier version began goes on; see tests/golden/checkpoints/README.md."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from oar_core.errors import CheckpointError
from oar_core.train import precision
from oar_core.train.checkpoint import (
    CONVERTERS,
    FORMAT,
    flatten_optimizer,
    load_checkpoint,
    load_checkpoint_meta,
    load_tensors,
    save_tensors,
    under_prefix,
)
from oar_core.train.loop import CHECKPOINT, RunState, Step
from oar_core.train.run import Run
from oar_core.train.stage_folders import ANY_ORDER_STAGE, TOKENIZER_STAGE
from oar_core.train.stage_trainer import StageTrainer
from oar_core.train.stage_weights import is_trained
from oar_core.train.stages.any_order import AnyOrderStage
from tests.golden.checkpoints.make import END, NUM_STEPS, STOPPED_AT, open_run, write_pictures

EARLIER = Path(__file__).parents[1] / "golden" / "checkpoints" / "format1"


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(precision, "_faster_on_cpu", lambda: torch.float32)
    shutil.copytree(EARLIER, tmp_path / "run")
    return open_run(write_pictures(tmp_path / "pictures"), tmp_path / "run")


def path_of(run: Run) -> Path:
    return run.folder / ANY_ORDER_STAGE / CHECKPOINT


class Seen(Exception):
    """What the first step after a resume found."""


def resumed(run: Run, monkeypatch: pytest.MonkeyPatch) -> tuple[int, dict[str, Tensor]]:
    """The step at which the run goes on, and the state that it goes on with."""
    states: list[RunState] = []
    found: dict[str, Tensor] = {}
    numbers: list[int] = []
    make = RunState.__init__

    def keep(state: RunState, *values: Any) -> None:
        make(state, *values)
        states.append(state)

    def look(stage: AnyOrderStage, step: Step) -> None:
        numbers.append(step.number)
        for prefix, tensors in (
            ("module", stage.module.state_dict()),
            ("ema", states[-1].ema.state_dict()),
            ("optimizer", flatten_optimizer(states[-1].optimizer)),
        ):
            found.update({f"{prefix}/{name}": value.clone() for name, value in tensors.items()})
        raise Seen

    with monkeypatch.context() as patch:
        patch.setattr(RunState, "__init__", keep)
        patch.setattr(AnyOrderStage, "before_step", look)
        with pytest.raises(Seen):
            StageTrainer(run).train_any_order()
    return numbers[0], found


def test_it_goes_on_at_its_step_with_its_weights_averages_and_moments(
    begun: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, meta = load_tensors(path_of(begun))
    assert "format" not in meta
    step, found = resumed(begun, monkeypatch)
    assert step == meta["step"] == STOPPED_AT
    assert found.keys() == stored.keys()
    assert any(name.endswith("exp_avg_sq") for name in found)
    assert [name for name, value in found.items() if not torch.equal(value, stored[name])] == []


def test_it_comes_to_the_end_that_it_would_have_come_to(begun: Run) -> None:
    StageTrainer(begun).train_any_order()
    ended, expected = load_checkpoint(path_of(begun)), load_checkpoint(EARLIER / END)
    younger = {"num_shards": 1}  # a field that the loop got later
    assert ended.meta == {**expected.meta, "loop": {**expected.meta["loop"], **younger}}
    assert ended.meta["step"] == NUM_STEPS
    for part in ("module", "ema"):
        for name, value in under_prefix(part, expected.tensors).items():
            torch.testing.assert_close(under_prefix(part, ended.tensors)[name], value, atol=1e-4, rtol=1e-3)


def test_what_is_written_has_the_present_format(begun: Run) -> None:
    StageTrainer(begun).train_any_order()
    assert load_tensors(path_of(begun))[1]["format"] == FORMAT
    assert is_trained(begun.folder / ANY_ORDER_STAGE)
    assert is_trained(begun.folder / TOKENIZER_STAGE)


def test_a_later_format_is_a_sentence(begun: Run) -> None:
    tensors, meta = load_tensors(path_of(begun))
    save_tensors(path_of(begun), tensors, {**meta, "format": FORMAT + 1})
    sentence = f"has format {FORMAT + 1}; this version of the library reads up to {FORMAT}"
    stage = begun.folder / ANY_ORDER_STAGE
    for read in (StageTrainer(begun).train_any_order, begun.backbone, lambda: is_trained(stage)):
        with pytest.raises(CheckpointError, match=sentence):
            read()
    with pytest.raises(CheckpointError, match=sentence):
        load_checkpoint_meta(path_of(begun))


def test_every_earlier_format_has_a_converter() -> None:
    assert sorted(CONVERTERS) == list(range(1, FORMAT))


def test_a_field_that_the_loop_got_later_has_its_default(begun: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors, meta = load_tensors(path_of(begun))
    older = {name: value for name, value in meta["loop"].items() if name != "ema_decay"}
    older["optim"] = {name: value for name, value in older["optim"].items() if name != "max_grad_norm"}
    save_tensors(path_of(begun), tensors, {**meta, "loop": older})
    assert resumed(begun, monkeypatch)[0] == STOPPED_AT
    other = replace(begun.recipe, any_order_loop=replace(begun.recipe.any_order_loop, ema_decay=0.5))
    with pytest.raises(CheckpointError, match="another config"):
        StageTrainer(replace(begun, recipe=other)).train_any_order()
