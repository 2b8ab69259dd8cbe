"""Line plots, where matplotlib is installed."""

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Curve:
    label: str
    points: tuple[tuple[float, float], ...]


def why_no_plots() -> str:
    """Empty where plots can be drawn."""
    found = importlib.util.find_spec("matplotlib") is not None
    return "" if found else "matplotlib is not installed (pip install 'oar-server[plot]')"


def draw_curves(curves: Sequence[Curve], x_label: str, y_label: str, path: Path) -> None:
    """A PNG, the horizontal axis in powers of two. Wants matplotlib; no window and no global figure is involved."""
    figure = importlib.import_module("matplotlib.figure").Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for curve in curves:
        axes.plot(*zip(*curve.points), marker="o", label=curve.label)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)
