"""The one training loop: every stage runs through `train`.

A step's batch and noise are functions of (seed, step) alone, so a run that was killed goes on from its last checkpoint
along the same loss curve.
"""

import csv
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Int
from torch import Tensor, nn
from tqdm import tqdm

from oar_core.errors import CheckpointError, ConfigError
from oar_core.train.checkpoint import (
    flatten_optimizer,
    load_checkpoint,
    restore_optimizer,
    save_checkpoint,
    under_prefix,
    with_prefix,
)
from oar_core.train.ema import Ema
from oar_core.train.optim import OptimConfig, ParamGroup, build_optimizer, learning_rate, set_learning_rate
from oar_core.train.precision import autocast

CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class LoopConfig:
    num_images: int
    batch_size: int = 64
    seed: int = 0
    optim: OptimConfig = field(default_factory=OptimConfig)
    ema_decay: float = 0.999
    checkpoint_every: int = 200  # steps
    log_every: int = 20  # steps

    def __post_init__(self) -> None:
        if min(self.num_images, self.batch_size, self.checkpoint_every, self.log_every) < 1:
            raise ConfigError("num_images, batch_size, checkpoint_every and log_every are positive")

    @property
    def num_steps(self) -> int:
        return num_steps(self.num_images, self.batch_size)


def num_steps(num_images: int, batch_size: int) -> int:
    return max(1, num_images // batch_size)


@dataclass(frozen=True)
class Step:
    """What a stage may know of the step it computes the loss of."""

    number: int  # from 0
    num_steps: int
    device: torch.device
    generator: torch.Generator  # on the CPU, seeded by (run seed, step)

    @property
    def progress(self) -> float:
        return self.number / self.num_steps


class Stage(Protocol):
    """One stage of training. `module` holds everything that a checkpoint must keep, the shipped part included.

    `loss` returns named scalars; "total" is minimised, the others are logged.
    """

    module: nn.Module

    def __len__(self) -> int: ...

    def param_groups(self) -> list[ParamGroup]: ...

    def before_step(self, step: Step) -> None: ...

    def loss(self, indices: Int[Tensor, "B"], step: Step) -> dict[str, Tensor]: ...


@dataclass
class RunState:
    step: int
    optimizer: torch.optim.Optimizer
    ema: Ema


def train(stage: Stage, config: LoopConfig, folder: Path, device: torch.device) -> Path:
    """Trains to the end, resuming from `folder` if it holds a checkpoint; returns the final checkpoint's path.

    Raises CheckpointError when the checkpoint was written under another config.
    """
    stage.module.to(device)
    state = RunState(0, build_optimizer(stage.param_groups(), config.optim), Ema(stage.module, config.ema_decay))
    path = folder / CHECKPOINT
    if path.exists():
        _resume(path, stage, config, state)
    curve = Curve(folder / "curve.csv", first_step=state.step)
    bar = tqdm(total=config.num_steps, initial=state.step, desc=folder.name, unit="step", mininterval=2.0)
    for indices in _batches(len(stage), config, first_step=state.step):
        losses = _train_step(stage, config, state, indices, device)
        state.step += 1
        bar.update()
        if state.step % config.log_every == 0 or state.step == config.num_steps:
            scalars = {name: float(value) for name, value in losses.items()}
            curve.add(state.step, scalars)
            bar.set_postfix({name: f"{value:.3f}" for name, value in scalars.items()}, refresh=False)
        if state.step % config.checkpoint_every == 0 or state.step == config.num_steps:
            _save(path, stage, config, state)
    bar.close()
    return path


def _train_step(
    stage: Stage, config: LoopConfig, state: RunState, indices: Tensor, device: torch.device
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + state.step)
    step = Step(state.step, config.num_steps, device, generator)
    set_learning_rate(state.optimizer, learning_rate(config.optim, state.step, config.num_steps))
    stage.before_step(step)
    with autocast(device):
        losses = stage.loss(indices, step)
    losses["total"].backward()
    # Clipped group by group: an adversary's large gradients must not shrink the generator's.
    norms = [nn.utils.clip_grad_norm_(g.parameters, config.optim.max_grad_norm) for g in stage.param_groups()]
    losses["grad_norm"] = norms[0]
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.ema.update(stage.module, state.step + 1)
    return {name: value.detach() for name, value in losses.items()}


def _batches(size: int, config: LoopConfig, *, first_step: int) -> Iterator[Int[Tensor, "B"]]:
    """Epochs of seeded permutations, cut into batches that may span two epochs; starts at any step."""
    epoch, order = -1, torch.empty(0, dtype=torch.int64)
    for step in range(first_step, config.num_steps):
        places = torch.arange(step * config.batch_size, (step + 1) * config.batch_size)
        parts: list[Tensor] = []
        for number in torch.unique(places // size).tolist():
            if number != epoch:
                epoch = number
                order = torch.randperm(size, generator=torch.Generator().manual_seed(config.seed * 7_919 + epoch))
            parts.append(order[places[places // size == number] % size])
        yield torch.cat(parts)


def _save(path: Path, stage: Stage, config: LoopConfig, state: RunState) -> None:
    tensors = {
        **with_prefix("module", stage.module.state_dict()),
        **with_prefix("ema", state.ema.state_dict()),
        **with_prefix("optimizer", flatten_optimizer(state.optimizer)),
    }
    save_checkpoint(path, tensors, {"step": state.step, "loop": asdict(config)})


def _resume(path: Path, stage: Stage, config: LoopConfig, state: RunState) -> None:
    checkpoint = load_checkpoint(path)
    tensors, meta = checkpoint.tensors, checkpoint.meta
    if _completed(meta["loop"], LoopConfig(num_images=1)) != _as_json(asdict(config)):
        raise CheckpointError(f"{path} was written under another config; choose another run folder or remove it")
    stage.module.load_state_dict(under_prefix("module", tensors))
    state.ema.load_state_dict(under_prefix("ema", tensors))
    restore_optimizer(state.optimizer, under_prefix("optimizer", tensors))
    state.step = meta["step"]


def _completed(stored: Any, usual: object) -> Any:
    """A stored config with the defaults of fields that it does not know: they were added later."""
    if not isinstance(stored, dict) or not is_dataclass(usual):
        return stored
    known = {item.name: getattr(usual, item.name) for item in fields(usual)}
    missing = {name: _as_json(value) for name, value in known.items() if name not in stored}
    return {**{name: _completed(value, known.get(name)) for name, value in stored.items()}, **missing}


def _as_json(value: Any) -> Any:
    """Tuples become lists, as they do in a stored config."""
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    return value


class Curve:
    """A CSV of logged scalars; rows after `first_step` (written by a run that was killed) are dropped."""

    def __init__(self, path: Path, *, first_step: int) -> None:
        self.path = path
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = [row for row in self.rows() if int(row["step"]) <= first_step]
        self.path.write_text("", encoding="utf-8")
        self._header: list[str] = []
        for row in kept:
            self._write(row)

    def rows(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def add(self, step: int, scalars: dict[str, float]) -> None:
        self._write({"step": str(step), **{name: f"{value:.6g}" for name, value in scalars.items()}})

    def _write(self, row: dict[str, str]) -> None:
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(row))
            if not self._header:
                self._header = list(row)
                writer.writeheader()
            writer.writerow(row)
