"""Stored evaluations side by side: figures with intervals, and what an arm changes of another one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from oar_core.errors import DataError
from oar_lab.eval.arms import Arm, Report, paired
from oar_lab.eval.bootstrap import Interval, Resampled, mean_of
from oar_lab.eval.figures import FIGURES, Figure, change_of

FOOTNOTE = (
    "Brackets: bootstrap 5-95 %, pictures drawn again. Several seeds of an arm are averaged first. Lite0-FD and "
    "Lite0-KID are on EfficientNet-Lite0's features of ImageNet and are no FID; rec: to reconstructions, not to real "
    "pictures. Distances grow as pictures get fewer: compare at the same number."
)


@dataclass(frozen=True)
class Change:
    """Difference of a figure between two arms; a share of it where the figure `is_relative`."""

    arm: str
    base: str
    figure: Figure
    value: float
    interval: Interval

    def to_dict(self) -> dict[str, Any]:
        unit = "relative" if self.figure.is_relative else "difference"
        return {"arm": self.arm, "base": self.base, "figure": self.figure.name, unit: self.value,
                "interval": list(self.interval)}  # fmt: skip

    @property
    def text(self) -> str:
        scale, unit = (100.0, " %") if self.figure.is_relative else (self.figure.scale, "")
        low, high = self.interval
        return f"{scale * self.value:+.1f}{unit} [{scale * low:+.1f}, {scale * high:+.1f}]"


def has_figures(arm: Arm) -> bool:
    """Evaluations of an earlier version have none."""
    return all("figures" in report for report in arm.reports)


def resampled(arm: Arm, figure: Figure) -> Resampled | None:
    """The mean over seeds; None where one of them lacks the figure."""
    if not has_figures(arm) or any(figure.name not in report["figures"]["values"] for report in arm.reports):
        return None
    return mean_of([
        Resampled(report["figures"]["values"][figure.name], tuple(report["figures"]["resamples"][figure.name]))
        for report in arm.reports
    ])  # fmt: skip


def figures_table_rows(arms: Sequence[Arm]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of each arm's figures with their intervals."""
    header = ["arm", "pictures", *(figure.title for figure in FIGURES)]
    rows: list[list[str]] = []
    for arm in arms:
        cells = [_cell(resampled(arm, figure), figure) for figure in FIGURES]
        rows.append([arm.name, str(arm.first["settings"]["num_samples"]), *cells])
    return header, rows


def changes(arm: Arm, base: Arm) -> list[Change]:
    """Changes over the seeds that both have, where there are such. Raises DataError where the two are not
    comparable."""
    _check_comparable(arm.first, base.first)
    arm, base = paired(arm, base)
    found: list[Change] = []
    for figure in FIGURES:
        pair = resampled(arm, figure), resampled(base, figure)
        if (
            pair[0] is None
            or pair[1] is None
            or (figure.is_of_reconstructions and not _same_reconstructions(arm, base))
        ):
            continue
        change = pair[0].against(pair[1], change_of(figure))
        found.append(Change(arm.name, base.name, figure, change.value, change.interval))
    return found


def changes_table_rows(arms: Sequence[Arm], base: Arm) -> tuple[list[str], list[list[str]]]:
    header = [f"against {base.name}", *(figure.title for figure in FIGURES)]
    rows: list[list[str]] = []
    for arm in arms:
        texts = {change.figure.name: change.text for change in changes(arm, base)}
        rows.append([arm.name, *(texts.get(figure.name, "-") for figure in FIGURES)])
    return header, rows


def comparable(arm: Arm, base: Arm) -> bool:
    return _why_not(arm.first, base.first) == ""


def _check_comparable(first: Report, second: Report) -> None:
    reason = _why_not(first, second)
    if reason:
        raise DataError(f"{first['label']} and {second['label']} cannot be compared: {reason}")


def _why_not(first: Report, second: Report) -> str:
    if "figures" not in first or "figures" not in second:
        return "one of them has no resamples; `oar eval quality` makes them"
    for name in ("recipe", "split", "evaluator"):
        if first[name] != second[name]:
            return f"they differ in {name}"
    counts = [report["settings"]["num_samples"] for report in (first, second)]
    if counts[0] != counts[1]:
        return f"they have {counts[0]} and {counts[1]} pictures"
    if any(first["figures"][name] != second["figures"][name] for name in ("num_resamples", "seed")):
        return "their pictures were drawn again in other ways"
    return "" if first["figures"]["num_resamples"] else "they have no resamples"


def _same_reconstructions(arm: Arm, base: Arm) -> bool:
    return len({report["figures"]["reconstructions"] for report in (*arm.reports, *base.reports)}) == 1


def _cell(found: Resampled | None, figure: Figure) -> str:
    if found is None:
        return "-"
    text = f"{figure.scale * found.value:.2f}"
    if not found.resamples:
        return text
    low, high = found.interval
    return f"{text} [{figure.scale * low:.2f}, {figure.scale * high:.2f}]"
