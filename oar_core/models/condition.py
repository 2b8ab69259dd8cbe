"""Condition prefixes of a batch: ids, or features of an encoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from oar_core.nn.tables import moved, right_padded


@dataclass(frozen=True, eq=False)
class Features:
    """A condition prefix of vectors in place of ids, such as an encoder makes of a caption; on the host."""

    values: Float[Tensor, "P F"]

    def __len__(self) -> int:
        return len(self.values)


Prefix = tuple[int, ...] | Features


@dataclass(frozen=True)
class Condition:
    """Condition prefixes of a batch: text token ids or class labels, right-padded; pads are ignored.

    Rows of which `is_features` consist of `features`, and their ids say nothing.
    """

    ids: Int[Tensor, "B P"]
    lengths: Int[Tensor, "B"]  # on the host
    features: Float[Tensor, "B P F"] | None = None  # None: no row has any
    is_features: Bool[Tensor, "B"] | None = None

    @classmethod
    def stack(cls, rows: Sequence[Prefix | Sequence[int]], device: torch.device) -> Self:
        """One prefix a row, padded to the longest."""
        ids = right_padded([(0,) * len(row) if isinstance(row, Features) else row for row in rows])
        return cls(
            moved([ids], device)[0],
            torch.tensor([len(row) for row in rows]),
            *cls._features(rows, ids.shape[1], device),
        )

    @staticmethod
    def _features(
        rows: Sequence[Prefix | Sequence[int]], length: int, device: torch.device
    ) -> tuple[Float[Tensor, "B P F"], Bool[Tensor, "B"]] | tuple[None, None]:
        found = [row.values for row in rows if isinstance(row, Features)]
        if not found:
            return None, None
        table = torch.zeros(len(rows), length, found[0].shape[1])
        for row, values in zip(table, rows):
            if isinstance(values, Features):
                row[: len(values)] = values.values
        return table.to(device), torch.tensor([isinstance(row, Features) for row in rows], device=device)
