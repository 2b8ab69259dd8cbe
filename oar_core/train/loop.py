"""The one training loop: every stage runs through `train`.

A step's batch and noise are functions of (seed, step) alone, so a run that was killed goes on from its last checkpoint
along the same loss curve. A batch may be divided into shards, each with noise of its own: processes that train together
share them out, and a process that has several adds up their gradients, so that the curve does not tell how many
processes there were.
"""

import csv
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
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
from oar_core.train.parallel import Processes, shards_of
from oar_core.train.precision import autocast

CHECKPOINT = "checkpoint.safetensors"
SHARD_SEEDS = 1 << 48  # between the seeds of the shards of a step


@dataclass(frozen=True)
class LoopConfig:
    num_images: int
    batch_size: int = 64
    seed: int = 0
    optim: OptimConfig = field(default_factory=OptimConfig)
    ema_decay: float = 0.999
    checkpoint_every: int = 200  # steps
    log_every: int = 20  # steps
    num_shards: int = 1  # of a batch, equal ones; a multiple of the processes

    def __post_init__(self) -> None:
        if self.num_shards < 1 or self.batch_size % self.num_shards:
            raise ConfigError(f"a batch of {self.batch_size} cannot be divided into {self.num_shards} equal shards")
        if min(self.num_images, self.batch_size, self.checkpoint_every, self.log_every) < 1:
            raise ConfigError("num_images, batch_size, checkpoint_every and log_every are positive")

    @property
    def num_steps(self) -> int:
        return num_steps(self.num_images, self.batch_size)


def num_steps(num_images: int, batch_size: int) -> int:
    return max(1, num_images // batch_size)


@dataclass(frozen=True)
class Step:
    """Facts of a step, for the stage that computes its loss."""

    number: int  # from 0
    num_steps: int
    device: torch.device
    generator: torch.Generator  # on the CPU, seeded by (run seed, step)

    @property
    def progress(self) -> float:
        return self.number / self.num_steps


class Stage(ABC):
    """One stage of training. `module` holds everything that a checkpoint must keep, the shipped part included.

    `loss` returns named scalars; "total" is minimised, the others are logged. A stage that can be sharded learns by
    gradients alone, which are means over a batch.
    """

    module: nn.Module
    can_shard: ClassVar[bool]

    @abstractmethod
    def __len__(self) -> int: ...

    def param_groups(self) -> list[ParamGroup]:
        return [ParamGroup(list(self.module.parameters()))]

    def before_step(self, step: Step) -> None:  # noqa: B027 - not abstract: few stages need it
        """Prepares what a step needs; most stages need nothing."""

    @abstractmethod
    def loss(self, indices: Int[Tensor, "B"], step: Step) -> dict[str, Tensor]: ...


@dataclass
class RunState:
    step: int
    optimizer: torch.optim.Optimizer
    ema: Ema
    losses: Callable[[Int[Tensor, "B"], Step], dict[str, Tensor]]  # of a shard; where processes train together, its
    # backward pass adds up their gradients


class _Loss(nn.Module):
    """A stage's loss as a module, so that gradients of several processes can be added up behind it."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.module = stage.module
        self._loss = stage.loss

    def forward(self, indices: Int[Tensor, "B"], step: Step) -> dict[str, Tensor]:
        return self._loss(indices, step)


def train(stage: Stage, config: LoopConfig, folder: Path, device: torch.device) -> Path:
    """Trains to the end, resuming from `folder` if it holds a checkpoint; returns the final checkpoint's path.

    Processes that train together do so with one shard each, unless the config has more. The first one writes. Raises
    CheckpointError when the checkpoint was written under another config, ConfigError where they cannot share a batch.
    """
    processes = Processes.current()
    config = _shared(stage, config, processes)
    stage.module.to(device)
    optimizer, ema = build_optimizer(stage.param_groups(), config.optim), Ema(stage.module, config.ema_decay)
    state = RunState(0, optimizer, ema, stage.loss)
    path = folder / CHECKPOINT
    if path.exists():
        _resume(path, stage, config, state)
    if processes.count > 1:
        state.losses = DistributedDataParallel(_Loss(stage), gradient_as_bucket_view=True)
    processes.wait()  # until all have read the checkpoint, which the first one will replace
    curve = Curve(folder / "curve.csv", first_step=state.step) if processes.is_first else None
    bar = tqdm(
        total=config.num_steps,
        initial=state.step,
        desc=folder.name,
        unit="step",
        mininterval=2.0,
        disable=not processes.is_first,
    )
    for indices in _batches(len(stage), config, first_step=state.step):
        losses = _train_step(stage, config, state, indices, device, processes)
        state.step += 1
        bar.update()
        if state.step % config.log_every == 0 or state.step == config.num_steps:
            scalars = processes.mean(losses)
            if curve is not None:
                curve.add(state.step, scalars)
            bar.set_postfix({name: f"{value:.3f}" for name, value in scalars.items()}, refresh=False)
        is_due = state.step % config.checkpoint_every == 0 or state.step == config.num_steps
        if is_due and processes.is_first:
            _save(path, stage, config, state)
    bar.close()
    processes.wait()  # until the checkpoint is there
    return path


def _shared(stage: Stage, config: LoopConfig, processes: Processes) -> LoopConfig:
    """Raises ConfigError."""
    count = processes.count
    if config.num_shards == 1 and count > 1:
        config = replace(config, num_shards=count)
    if config.num_shards > 1 and not stage.can_shard:
        raise ConfigError("this stage looks at a batch as a whole; train it in one process, with one shard")
    if config.num_shards % count:
        raise ConfigError(f"{config.num_shards} shards cannot be shared out evenly to {count} processes")
    return config


def _train_step(
    stage: Stage, config: LoopConfig, state: RunState, indices: Tensor, device: torch.device, processes: Processes
) -> dict[str, Tensor]:
    set_learning_rate(state.optimizer, learning_rate(config.optim, state.step, config.num_steps))
    shards = [
        (part, _step(config, state, device, number))
        for number, part in shards_of(indices, config.num_shards, processes)
    ]
    stage.before_step(shards[0][1])
    parts: list[dict[str, Tensor]] = []
    for part, step in shards:
        with _added_up(state, is_last=step is shards[-1][1]):
            with autocast(device):
                found = state.losses(part, step)
            (found["total"] / len(shards)).backward()
        parts.append({name: value.detach() for name, value in found.items()})
    losses = {name: torch.stack([part[name] for part in parts]).mean(dim=0) for name in parts[0]}
    # Clipped group by group: an adversary's large gradients must not shrink the generator's.
    norms = [nn.utils.clip_grad_norm_(g.parameters, config.optim.max_grad_norm) for g in stage.param_groups()]
    losses["grad_norm"] = norms[0]
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.ema.update(stage.module, state.step + 1)
    return losses


def _step(config: LoopConfig, state: RunState, device: torch.device, shard: int) -> Step:
    seed = config.seed * 1_000_003 + state.step + shard * SHARD_SEEDS
    return Step(state.step, config.num_steps, device, torch.Generator().manual_seed(seed))


def _added_up(state: RunState, *, is_last: bool) -> AbstractContextManager[None]:
    """Gradients of other processes come in once a step, with the last shard of each."""
    losses = state.losses
    return nullcontext() if is_last or not isinstance(losses, DistributedDataParallel) else losses.no_sync()


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
