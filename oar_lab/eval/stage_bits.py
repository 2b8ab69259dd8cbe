"""Held-out bits of several backbones of a run, each along an order of its own, beside those of the first."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from oar_core.errors import ConfigError
from oar_core.models.base import Backbone, Prefix
from oar_core.order.plan import group_sizes
from oar_core.train.run import Run
from oar_core.train.run_captions import RunCaptions
from oar_core.train.stage_folders import taught_order
from oar_lab.eval.bootstrap import Interval
from oar_lab.eval.group_loss import best_sizes, loss_table
from oar_lab.eval.likelihood import picture_bits
from oar_lab.eval.markdown import markdown_table

BATCH = 64  # pictures
ONE_A_STEP, COSINE, BEST = "one a step", "cosine", "best"
NORMAL_95 = 1.96  # standard errors of a mean


@dataclass(frozen=True)
class StepSizes:
    """So many steps of so many positions; no sizes: one position a step."""

    name: str
    sizes: tuple[int, ...] | None = None


@dataclass(frozen=True)
class StageBits:
    """Bits a token of each picture, by schedule, of one stage in one order."""

    label: str
    schedules: tuple[StepSizes, ...]
    bits: tuple[Float[Tensor, "M"], ...]

    def rows(self, base: "StageBits") -> list[dict[str, Any]]:
        return [
            {
                "stage": self.label,
                "schedule": schedule.name,
                "sizes": schedule.sizes,
                "bits_per_token": own.mean().item(),
                "difference": (own - other).mean().item(),
                "interval": list(interval_of_mean(own - other)),
            }
            for schedule, own, other in zip(self.schedules, self.bits, base.bits, strict=True)
        ]


def interval_of_mean(values: Float[Tensor, "M"]) -> Interval:
    """95 %, by the normal approximation."""
    mean, reach = values.mean().item(), NORMAL_95 * values.std().item() / math.sqrt(len(values))
    return Interval(mean - reach, mean + reach)


def measure_stage(run: Run, named: str, split: str, num_images: int, num_fit: int, steps: Sequence[int]) -> StageBits:
    """`named` is a stage, or a stage and an order with a colon between; alone, it is in the order that it was taught.

    Best sizes are fitted on `num_fit` other pictures, where there are steps. Raises ConfigError where the split has
    fewer pictures than that takes; and as `picture_bits` and `loss_table`.
    """
    stage, _, order = named.partition(":")
    backbone = run.backbone(stage)
    order = order or taught_order(stage, has_policy=backbone.has_policy)
    num_fit = num_fit if steps else 0
    token_ids, conditions = RunCaptions(run).sample(split, num_images + num_fit)
    if len(token_ids) < num_images + num_fit:
        raise ConfigError(
            f"split {split!r} has {len(token_ids)} pictures; {num_images} are to be measured, and group sizes to be "
            f"fitted on {num_fit} others"
        )
    schedules = [StepSizes(ONE_A_STEP)]
    if steps:
        schedules += _schedules(backbone, token_ids[num_images:], conditions[num_images:], order, steps)
    bits = [
        picture_bits(backbone, token_ids[:num_images], conditions[:num_images], order, sizes=schedule.sizes)
        for schedule in schedules
    ]
    return StageBits(f"{stage}:{order}", tuple(schedules), tuple(bits))


def _schedules(
    backbone: Backbone, token_ids: Int[Tensor, "F L"], conditions: Sequence[Prefix], order: str, steps: Sequence[int]
) -> list[StepSizes]:
    fitted = best_sizes(loss_table(backbone, token_ids, conditions, order, batch_size=BATCH), max(steps))
    found: list[StepSizes] = []
    for count in steps:
        found.append(StepSizes(f"{count} {COSINE}", group_sizes(COSINE, count, token_ids.shape[1])))
        found.append(StepSizes(f"{count} {BEST}", fitted[count]))
    return found


def stage_table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown; each row beside what it has more than the first stage in as many steps."""
    cells: list[list[str]] = []
    for row in rows:
        low, high = row["interval"]
        cells.append([row["stage"], row["schedule"], f"{row['bits_per_token']:.4f}",
                      f"{row['difference']:+.4f} [{low:+.4f}, {high:+.4f}]"])  # fmt: skip
    return markdown_table(("stage:order", "steps", "bits a token", "minus the first, 95 %"), cells)
