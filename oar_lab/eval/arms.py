"""Stored evaluations, and the arms of a study that they make up."""

import json
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from oar_core.errors import DataError
from oar_core.order.plan import ADAPTIVE
from oar_core.stored import digest
from oar_lab.eval.quality import FORMAT

Report = dict[str, Any]


def load_reports(folder: Path) -> list[Report]:
    """Loads reports in the order of their labels and settings. Raises DataError for a folder without any, or of another
    format."""
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise DataError(f"{folder} holds no evaluation: `oar eval quality` writes them")
    return sorted(map(load_report, paths), key=_sort_key)


def load_report(path: Path) -> Report:
    """Raises DataError for a file that is no evaluation of this format."""
    report: Report = json.loads(path.read_text(encoding="utf-8"))
    if report.get("format") != FORMAT:
        raise DataError(f"{path} is no evaluation of format {FORMAT}")
    return report


@dataclass(frozen=True)
class Arm:
    """Evaluations that differ in the seed alone."""

    label: str
    reports: tuple[Report, ...]

    @property
    def first(self) -> Report:
        return self.reports[0]

    @property
    def seeds(self) -> set[int]:
        return {report["settings"]["seed"] for report in self.reports}

    def of_seeds(self, seeds: Collection[int]) -> Self:
        return replace(self, reports=tuple(report for report in self.reports if report["settings"]["seed"] in seeds))

    def mean(self, *path: str) -> float:
        return statistics.fmean(_at(report, path) for report in self.reports)

    def cell(self, *path: str, digits: int = 2) -> str:
        return spread([_at(report, path) for report in self.reports], digits=digits)

    @property
    def order(self) -> str:
        order = self.first["settings"]["plan"]["order"]
        return order if isinstance(order, str) else "custom"

    @property
    def curve(self) -> str:
        """The name of all that differs from it in steps alone, or in the entropy bound of adaptive groups."""
        settings = self.first["settings"]
        sizes = sizes_text(settings["plan"]["group_sizes"])
        return f"{self.label}, {sizes}, guidance {guidance_text(settings['sampling'])}"

    @property
    def name(self) -> str:
        return f"{self.curve}, {self.mean('cost', 'mean_steps'):.1f} steps"

    @property
    def key(self) -> str:
        """Tells arms of one name apart, in the names of files."""
        return digest(_identity(self.first))[:6]


def paired(one: Arm, other: Arm) -> tuple[Arm, Arm]:
    """Both with the seeds alone that both have: those of one number share their weights, and their luck with them."""
    seeds = one.seeds & other.seeds
    return (one.of_seeds(seeds), other.of_seeds(seeds)) if seeds else (one, other)


def spread(values: Sequence[float], *, digits: int) -> str:
    """The mean, and the standard deviation where there are several seeds."""
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{deviation}"


def group_arms(reports: Sequence[Report]) -> list[Arm]:
    """One arm for each combination of label, data, evaluator and settings but the seed."""
    groups: dict[str, list[Report]] = {}
    for report in reports:
        groups.setdefault(digest(_identity(report)), []).append(report)
    return [Arm(members[0]["label"], tuple(members)) for members in groups.values()]


def best_guidance(arms: Sequence[Arm]) -> list[Arm]:
    """Keeps, of arms that differ in guidance alone, the one with the least FD-eval."""
    groups: dict[str, list[Arm]] = {}
    for arm in arms:
        settings = {**arm.first["settings"], "seed": None}
        settings["sampling"] = {**settings["sampling"], "guidance": None}
        groups.setdefault(json.dumps([arm.label, settings], sort_keys=True), []).append(arm)
    return [min(group, key=lambda arm: arm.mean("distances", "fd_eval")) for group in groups.values()]


def _identity(report: Report) -> list[Any]:
    settings = {name: value for name, value in report["settings"].items() if name != "seed"}
    plan = settings["plan"]
    if plan["steps"] is None and plan["group_sizes"] != ADAPTIVE:  # one position a step, whatever the sizes were
        settings["plan"] = {**plan, "group_sizes": None}
    return [*(report[name] for name in ("label", "recipe", "split", "evaluator")), settings]


def _sort_key(report: Report) -> tuple[Any, ...]:
    settings = report["settings"]
    return report["label"], report["cost"]["mean_steps"], settings["sampling"]["guidance"], settings["seed"]


def _at(report: Report, path: tuple[str, ...]) -> float:
    value: Any = report
    for name in path:
        value = value[name]
    return float(value)


def sizes_text(sizes: str | Sequence[int]) -> str:
    """A schedule's name, or the sizes in turn."""
    return sizes if isinstance(sizes, str) else " ".join(map(str, sizes))


def guidance_text(sampling: Mapping[str, Any]) -> str:
    """The scale, and what changes it with rank."""
    words = [f"{sampling['guidance']:g}"]
    if "guidance_schedule" in sampling:
        words.append(sampling["guidance_schedule"])
    if "guidance_interval" in sampling:
        words.append("from {:g} to {:g}".format(*sampling["guidance_interval"]))
    return " ".join(words)
