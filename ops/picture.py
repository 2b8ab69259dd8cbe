"""The dashboard's figures of a real run in one picture: `python -m ops.picture`.

Starts `oar serve` and Prometheus, sends a load, asks Prometheus every query of every panel, and draws the panels where
Grafana would. What is drawn is what Grafana shows, without Grafana.
"""

import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator
from tqdm import tqdm

from ops.dashboard import place
from ops.load import OfferedLoad
from ops.panels import GRID, ROWS, TONES, Panel, Unit, fill
from ops.prometheus import Prometheus, Series, find_prometheus

RULES = Path("docker/prometheus/rules.yml")
COLORS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#17becf", "#7f7f7f")
TONE_COLORS = {"green": "#2e8b57", "red": "#c0392b", "orange": "#e08e0b", "purple": "#8e6bbf", "blue": "#1f77b4"}
GOOD, FAIR, BAD = "#2e8b57", "#c98a00", "#c0392b"
CELL = (0.82, 0.36)  # inches of a grid cell
TITLE_ROWS = 2
PROMPTS = ("a person with short red hair, brown shirt and blue trousers, walking", "an orc with golden boots, walking")
STEP = 2.0  # seconds between points
VALUES = {"model": ".*", "quantile": "0.95", "interval": "20s"}
TITLE: dict[str, Any] = {"fontsize": 9, "loc": "left", "fontweight": "bold", "color": "#222222", "pad": 5}
STYLE = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e8e8e8",
    "axes.edgecolor": "#999999",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "legend.frameon": False,
    "legend.fontsize": 7,
}


@click.command()
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=Path("docs/dashboard.png"))
@click.option("--weights", type=click.Path(path_type=Path, file_okay=False), default=Path("weights"))
@click.option("--workers", type=int, default=1, show_default=True)
@click.option("--phases", default="0.2:20,0.6:30,2:30,0.2:30", show_default=True, help="Jobs a second : seconds, ...")
def picture_dashboard(out: Path, weights: Path, workers: int, phases: str) -> None:
    """Run a load and draw the dashboard."""
    if find_prometheus() is None:
        raise click.ClickException("there is no `prometheus` (Debian: apt-get install prometheus)")
    rates = [(float(rate), float(seconds)) for rate, seconds in (phase.split(":") for phase in phases.split(","))]
    with tempfile.TemporaryDirectory() as folder, serve_loaded(Path(folder), weights, workers) as url:
        jobs = {"oar-api": [url.removeprefix("http://")]}
        with Prometheus(Path(folder), jobs, RULES) as prometheus:
            start = time.time()
            load = offer_load(url, rates)
            figure = draw_board(prometheus, start, time.time(), f"{load.num_sent} jobs on {workers} worker(s), CPU")
    figure.savefig(out, dpi=110)
    click.echo(out)


@contextmanager
def serve_loaded(folder: Path, weights: Path, workers: int) -> Iterator[str]:
    settings = {"OAR_PORT": "0", "OAR_DATA_DIR": str(folder / "oar"), "OAR_WEIGHTS_DIR": str(weights.resolve()),
                "OAR_WORKERS": str(workers)}  # fmt: skip
    with (
        (folder / "serve.log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", "oar_cli", "serve"],
            env={**os.environ, **settings},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
        ) as process,
    ):
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise click.ClickException((folder / "serve.log").read_text(encoding="utf-8"))
        try:
            yield url
        finally:
            process.send_signal(signal.SIGINT)


def offer_load(url: str, rates: Sequence[tuple[float, float]]) -> OfferedLoad:
    prompts = [
        "a person with short red hair, brown shirt and blue trousers, walking",
        "an orc with golden boots, walking",
    ]
    load = OfferedLoad(url, prompts, steps=32)
    for rate, seconds in tqdm(rates, desc="load", unit="phase"):
        load.run(seconds, rate)
    time.sleep(3 * STEP)
    return load


# drawing


def draw_board(prometheus: Prometheus, start: float, end: float, subject: str) -> Figure:
    """The panels in their places."""
    height = TITLE_ROWS + sum(1 + max(where.y + where.h for _, where in place(row, 0)) for row in ROWS)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(GRID * CELL[0], height * CELL[1]), facecolor="white")
        figure.text(0.008, 1 - 0.9 / height, "OAR server: latency", fontsize=17, fontweight="bold", va="center")
        figure.text(0.15, 1 - 0.9 / height, f"{subject}; quantile {VALUES['quantile']}, interval {VALUES['interval']}",
                    fontsize=10, color="#555555", va="center")  # fmt: skip
        top = TITLE_ROWS
        for row in ROWS:
            figure.text(0.008, 1 - (top + 0.55) / height, row.title, fontsize=11, fontweight="bold", color="#333333",
                        va="center")  # fmt: skip
            places = place(row, top + 1)
            for panel, where in places:
                found = ask(prometheus, panel, start, end)
                left, bottom = (where.x + 0.95) / GRID, 1 - (where.y + where.h - 1.5) / height
                size = (where.w - 1.25) / GRID, (where.h - 2.75) / height
                if panel.kind == "tile":
                    left, bottom = (where.x + 0.1) / GRID, 1 - (where.y + where.h - 0.1) / height
                    size = (where.w - 0.2) / GRID, (where.h - 0.2) / height
                card = ((where.x + 0.1) / GRID, 1 - (where.y + where.h - 0.1) / height)
                sides = (where.w - 0.2) / GRID, (where.h - 0.2) / height
                figure.add_artist(
                    Rectangle(card, *sides, facecolor="white", edgecolor="#dddddd", linewidth=0.8, zorder=-1)
                )
                axes = figure.add_axes((left, bottom, *size))
                paint_panel(axes, panel, found, (start, end))
            top = max(where.y + where.h for _, where in places)
    return figure


def ask(prometheus: Prometheus, panel: Panel, start: float, end: float) -> list[tuple[str, Series]]:
    """The series of all queries, named as the legend says."""
    found: list[tuple[str, Series]] = []
    for query in panel.queries:
        for series in prometheus.query_range(fill(query.expr, **VALUES, worker=".*"), start, end, STEP):
            legend = query.legend.replace("$quantile", VALUES["quantile"])
            for label, value in series["metric"].items():
                legend = legend.replace("{{" + label + "}}", value)
            found.append((legend, series))
    return found


def paint_panel(axes: Axes, panel: Panel, found: list[tuple[str, Series]], span: tuple[float, float]) -> None:
    if panel.kind == "tile":
        _paint_tile(axes, panel, found)
        return
    axes.set_title(panel.title, **TITLE)
    axes.set_axisbelow(True)
    axes.set_xlim(0, span[1] - span[0])
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} s"))
    if panel.kind == "heatmap":
        axes.set_title(f"{panel.title} (jobs in {VALUES['interval']})", **TITLE)
        _paint_heatmap(axes, found, span)
        return
    times = [np.asarray(series["times"]) - span[0] for _, series in found]
    if panel.kind == "stack":
        grid = np.arange(0, span[1] - span[0], STEP)
        rows = [np.interp(grid, at, series["values"], 0, 0) for at, (_, series) in zip(times, found)]
        axes.stackplot(grid, rows, labels=[name for name, _ in found], colors=COLORS, alpha=0.75, linewidth=0)
    else:
        for index, (at, (name, series)) in enumerate(zip(times, found)):
            color = TONE_COLORS[TONES[name]] if name in TONES else COLORS[index % len(COLORS)]
            axes.plot(at, series["values"], color=color, linewidth=1.4, label=name)
            axes.fill_between(at, series["values"], color=color, alpha=0.07, linewidth=0)
    top = max((max(series["values"]) for _, series in found), default=0.0)
    if panel.kind == "lines":
        axes.set_ylim(0, top * 1.12 or 1)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: written(value, panel.unit)))
    if found:
        columns = min(3 if panel.width >= 8 else 2, len(found))
        axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.1), ncols=columns, borderpad=0, columnspacing=1.2,
                    handlelength=1.2, labelspacing=0.2)  # fmt: skip
    else:
        axes.text(0.5, 0.5, "nothing", transform=axes.transAxes, ha="center", color="#999999")


def _paint_tile(axes: Axes, panel: Panel, found: list[tuple[str, Series]]) -> None:
    axes.set_axis_off()
    value = float(found[0][1]["values"][-1]) if found else math.nan
    color = tone(value, panel.bounds)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.axvspan(0, 1, color=color, alpha=0.1, linewidth=0)
    if found and np.ptp(found[0][1]["values"]) > 0:
        times, values = np.asarray(found[0][1]["times"]), np.asarray(found[0][1]["values"])
        spread = np.ptp(times) or 1
        highest = max(float(values.max()), 1e-9)
        axes.fill_between((times - times[0]) / spread, 0.3 * values / highest, color=color, alpha=0.25, linewidth=0)
    axes.text(
        0.5, 0.56, written(value, panel.unit), ha="center", va="center", fontsize=20, fontweight="bold", color=color
    )
    axes.text(0.03, 0.97, panel.title, ha="left", va="top", fontsize=9, fontweight="bold", color="#222222")


def _paint_heatmap(axes: Axes, found: list[tuple[str, Series]], span: tuple[float, float]) -> None:
    """Buckets that were ever filled, from below; the shade is the share of the fullest cell."""
    bounds = sorted({float(series["metric"]["le"]) for _, series in found})
    grid = np.arange(0, span[1] - span[0] + STEP, STEP)
    below = np.zeros((len(bounds), len(grid) - 1))
    for _, series in found:
        at = ((np.asarray(series["times"]) - span[0]) / STEP).astype(int)
        inside = at < below.shape[1]
        below[bounds.index(float(series["metric"]["le"])), at[inside]] = np.asarray(series["values"])[inside]
    counts = np.diff(below, axis=0, prepend=0).clip(0)
    filled = np.flatnonzero(counts.max(axis=1) > 1e-9)
    first, last = (max(0, filled[0] - 1), min(len(bounds), filled[-1] + 2)) if len(filled) else (0, len(bounds))
    shown = np.ma.masked_less(counts[first:last], 1e-9)
    axes.grid(visible=False)
    mesh = axes.pcolormesh(grid, np.arange(last - first + 1), shown, cmap="YlOrRd", shading="flat")
    names = ["0", *("∞" if math.isinf(bound) else written(bound, "s") for bound in bounds)]
    axes.set_yticks(np.arange(last - first + 1), names[first : last + 1])
    bar = axes.figure.colorbar(mesh, ax=axes, pad=0.01, fraction=0.025)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    bar.ax.tick_params(labelsize=7, length=0)


def tone(value: float, bounds: tuple[float, float] | None) -> str:
    if bounds is None:
        return GOOD
    if math.isnan(value):
        return "#999999"
    low, high = min(bounds), max(bounds)
    colors: tuple[str, str, str] = (BAD, FAIR, GOOD) if bounds == (low, high) else (GOOD, FAIR, BAD)
    return colors[(value >= low) + (value >= high)]


def written(value: float, unit: Unit) -> str:
    """A value as Grafana writes it, nearly."""
    if math.isnan(value):
        return "no traffic"
    if unit == "s":
        return f"{value * 1000:.3g} ms" if 0 < abs(value) < 1 else f"{value:.3g} s"
    if unit == "percentunit":
        return f"{value:.1%}" if 0 < value < 1 else f"{value:.0%}"
    if unit == "bytes":
        return f"{value / (1 << 20):.3g} MiB"
    suffix: dict[Any, str] = {"reqps": "/s", "ops": "/s"}
    return f"{value:.3g}{suffix.get(unit, '')}"


if __name__ == "__main__":
    picture_dashboard()
