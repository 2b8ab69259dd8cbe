"""Checkpoints as one safetensors file each, with a format version: what was begun by an earlier version goes on.

A checkpoint's tensors are named `module/...`, `ema/...` and `optimizer/...`; its metadata are the format, the step and
the settings of the loop.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oar_core.errors import CheckpointError
from oar_core.tensor_file import load_meta as load_meta
from oar_core.tensor_file import load_tensors as load_tensors
from oar_core.tensor_file import save_tensors as save_tensors

FORMAT = 2


@dataclass(frozen=True)
class TrainingCheckpoint:
    """Contents of a file, in the present format."""

    tensors: dict[str, Tensor]
    meta: dict[str, Any]


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    save_tensors(path, tensors, {"format": FORMAT, **meta})


def load_checkpoint(path: Path) -> TrainingCheckpoint:
    """Raises CheckpointError for a file that is missing or of a later format."""
    tensors, meta = load_tensors(path)
    return _converted(path, TrainingCheckpoint(tensors, meta))


def load_checkpoint_meta(path: Path) -> dict[str, Any]:
    """The metadata alone. Raises as `load_checkpoint`."""
    return _converted(path, TrainingCheckpoint({}, load_meta(path))).meta


def _converted(path: Path, checkpoint: TrainingCheckpoint) -> TrainingCheckpoint:
    version = checkpoint.meta.get("format", 1)
    if version > FORMAT:
        raise CheckpointError(f"{path} has format {version}; this version of the library reads up to {FORMAT}")
    for number in range(version, FORMAT):
        checkpoint = CONVERTERS[number](checkpoint)
    return checkpoint


def _from_1(checkpoint: TrainingCheckpoint) -> TrainingCheckpoint:
    """Format 1 had no number."""
    return TrainingCheckpoint(checkpoint.tensors, {**checkpoint.meta, "format": 2})


# From the format of that number to the next one. Without tensors where the metadata alone were read.
CONVERTERS: dict[int, Callable[[TrainingCheckpoint], TrainingCheckpoint]] = {1: _from_1}


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """`state.{parameter number}.{name}`; hyper-parameters belong to the config and are not stored."""
    state = optimizer.state_dict()["state"]
    return {
        f"{number}.{name}": torch.as_tensor(value) for number, entry in state.items() for name, value in entry.items()
    }


@torch.no_grad()
def restore_optimizer(optimizer: torch.optim.Optimizer, flat: Mapping[str, Tensor]) -> None:
    """Moments take their parameter's memory layout: a fused step walks both as flat memory, and files forget it."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        number, name = key.split(".", 1)
        parameter = parameters[int(number)]
        same_shape = value.shape == parameter.shape
        state.setdefault(int(number), {})[name] = torch.empty_like(parameter).copy_(value) if same_shape else value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def under_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = prefix + "/"
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
