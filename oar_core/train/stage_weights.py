"""Trained weights of a stage's folder."""

from pathlib import Path

from torch import Tensor

from oar_core.errors import CheckpointError
from oar_core.train.checkpoint import load_checkpoint, load_checkpoint_meta, under_prefix
from oar_core.train.loop import CHECKPOINT, num_steps


def is_trained(folder: Path) -> bool:
    """Tells whether a stage was trained to its end."""
    path = folder / CHECKPOINT
    if not path.exists():
        return False
    meta = load_checkpoint_meta(path)
    return meta["loop"] is None or meta["step"] == num_steps(meta["loop"]["num_images"], meta["loop"]["batch_size"])


def averaged_weights(folder: Path, prefix: str = "") -> dict[str, Tensor]:
    """Reads the averaged weights whose names begin with `prefix`, and leaves it out. Raises CheckpointError."""
    averaged = under_prefix("ema", load_checkpoint(folder / CHECKPOINT).tensors)
    state = {name.removeprefix(prefix): value for name, value in averaged.items() if name.startswith(prefix)}
    if not state:
        raise CheckpointError(f"{folder} holds no averaged weights")
    return state
