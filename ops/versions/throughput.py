"""Pairs of `oar bench throughput`, one of each version in turn, and the ratio of their CPU seconds.

Load of the machine falls on both of a pair alike, and which goes first changes from pair to pair. `whole` is the CPU
time of the command as the kernel counts it, with imports and the reading of weights; `pictures` is the benchmark's own
figure, which is CPU time too where it has one thread.
"""

import json
import math
import random
import resource
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

import click

from ops.versions.part import Part, part_table
from ops.versions.tree import Tree

NUM_PAIRS = 10
REPEATS = {1: 16, 16: 3}  # so that pictures take about half of the command's time
NUM_RESAMPLES = 10_000
LOW, HIGH = 0.025, 0.975
MOST = 1.05  # of the earlier version's CPU seconds


@dataclass(frozen=True)
class BenchRun:
    whole: float  # CPU seconds
    pictures: float


@dataclass(frozen=True)
class Ratio:
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def compare_throughput(old: Tree, new: Tree, num_pairs: int = NUM_PAIRS, repeats: dict[int, int] = REPEATS) -> Part:
    """`repeats` by batch size."""
    rows: list[tuple[object, ...]] = []
    facts: dict[str, object] = {}
    is_good = True
    for batch, count in repeats.items():
        pairs = [_pair(old, new, number, batch, count) for number in range(num_pairs)]
        for name in ("whole", "pictures"):
            seconds = [(getattr(before, name), getattr(after, name)) for before, after in pairs]
            found = ratio(seconds)
            is_good = is_good and found.value <= MOST
            means = [math.fsum(column) / num_pairs for column in zip(*seconds)]
            rows.append((batch, name, *(f"{mean:.3f}" for mean in means), found))
            facts[f"{name} {batch}"] = {"ratio": found.value, "interval": [found.low, found.high], "seconds": seconds}
    header = ("pictures at once", "CPU seconds of", f"{old.name}, mean", f"{new.name}, mean", "ratio (95 %)")
    lines = [*part_table(header, rows), "", f"{num_pairs} pairs; {'within' if is_good else 'NOT within'} 5 %"]
    return Part("Throughput", is_good, lines, {"pairs": num_pairs, **facts})


def ratio(pairs: Sequence[tuple[float, float]], seed: int = 0) -> Ratio:
    """The geometric mean of the second over the first, and the bootstrap interval of drawing pairs again."""
    logs = [math.log(after / before) for before, after in pairs]
    dice = random.Random(seed)
    means = sorted(math.fsum(dice.choices(logs, k=len(logs))) / len(logs) for _ in range(NUM_RESAMPLES))
    low, high = (math.exp(means[round(share * (NUM_RESAMPLES - 1))]) for share in (LOW, HIGH))
    return Ratio(math.exp(math.fsum(logs) / len(logs)), low, high)


def _pair(old: Tree, new: Tree, number: int, batch: int, repeats: int) -> tuple[BenchRun, BenchRun]:
    if number % 2:
        after, before = _run(new, batch, repeats), _run(old, batch, repeats)
    else:
        before, after = _run(old, batch, repeats), _run(new, batch, repeats)
    click.echo(f"pair {number + 1} of {batch} at once: {before.whole:.2f} and {after.whole:.2f} CPU seconds", err=True)
    return before, after


def _run(tree: Tree, batch: int, repeats: int) -> BenchRun:
    """Raises CalledProcessError."""
    words = ("--weights", str(tree.weights), "--batch", str(batch), "--repeats", str(repeats), "--threads", "1")
    start = _children_seconds()
    done = subprocess.run(
        tree.command("bench", "throughput", *words),
        cwd=tree.folder,
        env=tree.environment(),
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    (row,) = json.loads(done.stdout.splitlines()[-1])["rows"]
    return BenchRun(_children_seconds() - start, row["seconds"])


def _children_seconds() -> float:
    """CPU time of all children of this process that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
