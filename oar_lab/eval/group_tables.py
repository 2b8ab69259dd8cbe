"""A model's own group sizes: fitted on some held-out pictures, scored on others, and kept in its folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from oar_core.errors import DataError
from oar_core.models.model import CONFIG, GROUP_TABLES, Model
from oar_core.new_file import new_file
from oar_core.order.plan import SCHEDULES, group_sizes
from oar_core.weights import Manifest, write_manifest
from oar_lab.eval.group_loss import LossTable, best_sizes, excess, loss_table
from oar_lab.eval.reference import Pictures, choose_pictures


@dataclass(frozen=True)
class Halves:
    """Held-out pictures to fit sizes on and others to score them on; no label row is in both.

    `num_clear` pictures at the head of the fixed random order, whose captions evaluations draw, are in neither.
    """

    fit: Int[Tensor, "F"]
    score: Int[Tensor, "S"]
    num_clear: int


def split_halves(row_of: Int[np.ndarray, "M"], num_fit: int, num_score: int) -> Halves:
    """Splits pictures from the end of the order in which evaluations take them. Raises DataError where there are too
    few."""
    order = choose_pictures(len(row_of), len(row_of)).flip(0)
    rows = torch.from_numpy(np.asarray(row_of)).long()[order]
    fit = order[:num_fit]
    others = (~torch.isin(rows, rows[:num_fit])).nonzero().squeeze(1)[:num_score]
    if len(fit) < num_fit or len(others) < num_score:
        raise DataError(
            f"there are too few held-out pictures: {num_fit} and {num_score} without a common label row are needed"
        )
    return Halves(fit, order[others], len(order) - 1 - max(num_fit - 1, int(others.max())))


@dataclass(frozen=True)
class SizeTable:
    """Sizes of one order in 1, 2, ... steps, with the two tables that they were fitted and are scored on."""

    order: str
    sizes: Mapping[int, tuple[int, ...]]
    fitted: LossTable
    scored: LossTable

    @property
    def nats(self) -> float:
        """Nats of a scored picture, one position a step."""
        return self.scored.diagonal().sum().item()

    def row(self, steps: int) -> dict[str, Any]:
        """Costs of each schedule of so many steps on the scored pictures, above one position a step; the best
        sizes also as they were fitted, which flatters them."""
        usual = {kind: group_sizes(kind, steps, len(self.scored)) for kind in SCHEDULES}
        costs = {kind: round(excess(self.scored, sizes), 4) for kind, sizes in usual.items()}
        best = self.sizes[steps]
        return {"steps": steps, **costs, "best": round(excess(self.scored, best), 4),
                "best_fitted": round(excess(self.fitted, best), 4), "sizes": list(best)}  # fmt: skip


def fit_sizes(
    model: Model,
    pictures: Pictures,
    halves: Halves,
    order: str,
    most_steps: int,
    *,
    batch_size: int = 32,
    seed: int = 0,
) -> SizeTable:
    """Raises as `loss_table` and `best_sizes`."""
    tables: list[LossTable] = []
    for chosen, first in ((halves.fit, 0), (halves.score, len(halves.fit))):
        ids = _encode(model, pictures.pixels[chosen.numpy()], batch_size)
        captions = [pictures.rows[row]["caption"] for row in pictures.row_of[chosen.numpy()].tolist()]
        conditions = model.conditioner.encode_captions(captions, max_length=model.backbone.spec.max_condition)
        tables.append(loss_table(model.backbone, ids, conditions, order, batch_size=batch_size, seed=seed, first=first))
    return SizeTable(order, best_sizes(tables[0], most_steps), *tables)


def _encode(model: Model, pixels: UInt8[np.ndarray, "M Y X 3"], batch_size: int) -> Int[Tensor, "M L"]:
    parts = [model.encode(pixels[start : start + batch_size]) for start in range(0, len(pixels), batch_size)]
    return torch.cat(parts).cpu()


def store_tables(manifest: Manifest, name: str, tables: Sequence[SizeTable]) -> None:
    """Into the config of a model's folder, whose digest in the manifest is renewed. Other orders' tables stay."""
    path = manifest.folder(name) / CONFIG
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
    stored = {table.order: {str(steps): list(sizes) for steps, sizes in table.sizes.items()} for table in tables}
    config[GROUP_TABLES] = {**config.get(GROUP_TABLES, {}), **stored}
    with new_file(path) as part:
        part.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        part.chmod(0o644)
    licences = {entry.name: entry.licence for entry in manifest.entries.values()}
    write_manifest(path.parents[1], manifest.default, licences)
