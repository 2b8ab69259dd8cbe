"""Small integer tables that are built on the host and read on the device."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor


def moved(tables: Sequence[Int[np.ndarray, "*_"]], device: torch.device) -> list[Int[Tensor, "*_"]]:
    """The tables on the device, moved as one; to CUDA from pinned memory, which the host need not wait for."""
    flat = torch.from_numpy(np.concatenate([np.asarray(table, dtype=np.int64).ravel() for table in tables]))
    on_device = flat.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else flat.to(device)
    parts = on_device.split([table.size for table in tables])
    return [part.view(table.shape) for part, table in zip(parts, tables)]


def right_padded(rows: Sequence[Sequence[int]]) -> Int[np.ndarray, "B P"]:
    """Rows of different lengths as one table, zeros behind them."""
    table = np.zeros((len(rows), max(map(len, rows), default=0)), dtype=np.int64)
    for row, values in enumerate(rows):
        table[row, : len(values)] = values
    return table


def offsets_within(counts: Int[np.ndarray, "B"]) -> Int[np.ndarray, "M"]:
    """0, 1, ... within each of rows of `counts` entries that are laid end to end."""
    return np.arange(int(counts.sum())) - np.repeat(starts_of(counts), counts)


def starts_of(counts: Int[np.ndarray, "B"]) -> Int[np.ndarray, "B"]:
    """The start of each row, where rows of `counts` entries are laid end to end."""
    return counts.cumsum() - counts


def places_within(starts: Int[np.ndarray, "B"], counts: Int[np.ndarray, "B"]) -> Int[np.ndarray, "M"]:
    """`starts[b]`, `starts[b] + 1`, ...: `counts[b]` of each row, end to end."""
    return np.repeat(starts, counts) + offsets_within(counts)
