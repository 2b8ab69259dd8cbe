"""Line plots, where matplotlib is installed."""

import importlib
import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oar_lab.eval.arms import Arm

# A value above so many times the least is told at the upper edge, or it would squeeze all others into a line.
REACH = 2.0
LINES = (("-", "o"), ("--", "s"), (":", "^"))  # with a marker each
COLOURS = 7
COSTS = {"mean_steps": "steps", "query_evaluations": "query evaluations per picture"}


@dataclass(frozen=True)
class PlottedCurve:
    label: str
    points: tuple[tuple[float, float], ...]


def why_no_plots() -> str:
    """Empty where plots can be drawn."""
    found = importlib.util.find_spec("matplotlib") is not None
    return "" if found else "matplotlib is not installed (pip install 'oar-server[plot]')"


def plot_distances(
    arms: Sequence[Arm], label: Callable[[Arm], str], distance: Callable[[Arm], float], name: str, folder: Path
) -> list[str]:
    """FD-eval against each cost, one curve a label, as PNGs in a folder; returns Markdown that shows them."""
    lines: list[str] = []
    for figure, axis in COSTS.items():
        curves: dict[str, list[tuple[float, float]]] = {}
        for arm in arms:
            curves.setdefault(label(arm), []).append((arm.mean("cost", figure), distance(arm)))
        plotted = [PlottedCurve(title, tuple(sorted(points))) for title, points in curves.items()]
        path = folder / f"{name}-{figure.replace('_', '-')}.png"
        draw_curves(plotted, axis, "FD-eval", path)
        lines.append(f"![FD-eval against {axis}]({folder.name}/{path.name})")
    return lines


def draw_curves(curves: Sequence[PlottedCurve], x_label: str, y_label: str, path: Path) -> None:
    """A PNG, the horizontal axis in powers of two. Wants matplotlib; no window and no global figure is involved."""
    figure = importlib.import_module("matplotlib.figure").Figure(figsize=(10.5, 4.8), layout="constrained")
    axes = figure.subplots()
    least = min((y for curve in curves for _, y in curve.points), default=0.0)
    top = REACH * least if least > 0 else math.inf
    for index, curve in enumerate(curves):
        line, marker = LINES[index // COLOURS % len(LINES)]
        colour = f"C{index % COLOURS}"
        axes.plot(*zip(*curve.points), line, marker=marker, markersize=5, color=colour, label=curve.label)
        _tell_high(axes, curve, top, colour)
    if axes.get_ylim()[1] > top:
        axes.set_ylim(0.95 * least, top)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    figure.savefig(path, dpi=110)


def _tell_high(axes: Any, curve: PlottedCurve, top: float, colour: str) -> None:
    """Each value above the upper edge as a figure under an arrow."""
    for x, y in curve.points:
        if y > top:
            axes.plot([x], [top], marker="^", markersize=9, color=colour, clip_on=False)
            axes.annotate(
                f"{y:.3g}", (x, top), (0, -7), textcoords="offset points", ha="center", va="top", color=colour
            )
