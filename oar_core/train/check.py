"""A training folder looked at before hours are spent on it: what is there, what cannot be read, what will surprise."""

import hashlib
import random
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from oar_core.errors import DataError
from oar_core.text import TextTokenizer
from oar_core.train.captions import CAPTION_SOURCES
from oar_core.train.data import PAD, fit_canvas, keep_rows
from oar_core.train.layouts import SPLITS, TRAIN, Row, open_layout
from oar_core.train.recipe import Recipe

FEW_PICTURES = 1000
MOST_EXAMPLES = 10
SMALL = 0.5  # of the canvas, along both axes


@dataclass(frozen=True)
class Lengths:
    """Lengths of captions, in characters or tokens."""

    shortest: int
    median: float
    longest: int

    @classmethod
    def of(cls, lengths: Sequence[int]) -> "Lengths":
        return cls(min(lengths), statistics.median(lengths), max(lengths))


@dataclass(frozen=True)
class DataReport:
    """Findings of `check_data`. `problems` would end a training; `notes` may be meant so."""

    folder: str
    layout: str
    recipe: str
    canvas: tuple[int, int]  # Y, X in pixels
    held_out: str  # the split that evaluations use
    num_left_out: int  # rows that the recipe does not keep
    num_pictures: dict[str, int]  # by split; of those that can be read
    num_rows: dict[str, int]  # by split
    sizes: dict[str, int]  # WIDTHxHEIGHT of pictures, the most frequent ones first
    num_smaller: int  # than half the canvas, along both axes
    num_bordered: int  # that get a white border
    caption_chars: Lengths | None
    caption_tokens: Lengths | None  # by the text tokenizer that these captions would train
    num_cut_captions: int  # longer than the model reads
    num_empty_captions: int
    num_duplicates: dict[str, int]  # pictures beyond the first of their kind, by split
    num_shared: int  # pictures of other splits that are in the training split too
    unreadable: tuple[str, ...]  # why, with the file's name
    problems: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass
class _Pictures:
    """Findings from reading all pictures. Two are the same if their pixels on the canvas are."""

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter[tuple[int, int]])  # width, height
    digests: dict[str, Counter[bytes]] = field(default_factory=dict[str, Counter[bytes]])
    shared: list[str] = field(default_factory=list[str])
    unreadable: list[str] = field(default_factory=list[str])


def check_data(folder: Path, recipe: Recipe) -> DataReport:
    """Reads every picture once. Raises DataError where there are no labels to begin with."""
    layout = open_layout(folder)
    kept = keep_rows(layout.rows, recipe.kept_rows)
    found = _Pictures()
    # The training split first: pictures of the others are looked for in it.
    rows = sorted(kept, key=lambda row: row["split"] != TRAIN)
    for row in tqdm(rows, desc="reading", unit="file"):
        try:
            pictures = layout.read(row)
        except DataError as error:
            found.unreadable.append(str(error))
            continue
        for picture in pictures:
            found.sizes[picture.size] += 1
            canvas = fit_canvas(picture, recipe.tokenizer.image_size, recipe.fit)
            _count(found, row, hashlib.sha256(canvas.tobytes()).digest())
    return _report(folder, layout.kind, kept, recipe, found, num_left_out=len(layout.rows) - len(kept))


def _count(found: _Pictures, row: Row, digest: bytes) -> None:
    split = row["split"]
    if split != TRAIN and digest in found.digests.get(TRAIN, ()):
        found.shared.append(row.get("file") or row["id"])
    found.digests.setdefault(split, Counter())[digest] += 1


def _report(
    folder: Path, kind: str, rows: list[Row], recipe: Recipe, found: _Pictures, *, num_left_out: int
) -> DataReport:
    height, width = recipe.tokenizer.image_size
    num_rows = Counter(row["split"] for row in rows)
    trained = [row for row in rows if row["split"] == TRAIN]
    tokens = _caption_tokens(trained, recipe)
    report = DataReport(
        folder=str(folder),
        layout=kind,
        recipe=recipe.name,
        canvas=(height, width),
        held_out=recipe.held_out,
        num_left_out=num_left_out,
        num_pictures={split: found.digests[split].total() for split in sorted(found.digests)},
        num_rows=dict(sorted(num_rows.items())),
        sizes={f"{x}x{y}": count for (x, y), count in found.sizes.most_common(MOST_EXAMPLES)},
        num_smaller=sum(n for (x, y), n in found.sizes.items() if x <= width * SMALL and y <= height * SMALL),
        num_bordered=0
        if recipe.fit != PAD
        else sum(n for (x, y), n in found.sizes.items() if not _fills(x, y, recipe)),
        caption_chars=Lengths.of([len(row["caption"]) for row in trained]) if trained else None,
        caption_tokens=Lengths.of(tokens) if tokens else None,
        num_cut_captions=sum(count > recipe.backbone.max_condition for count in tokens),
        num_empty_captions=sum(not row["caption"].strip() for row in rows),
        num_duplicates={split: seen.total() - len(seen) for split, seen in sorted(found.digests.items())},
        num_shared=len(found.shared),
        unreadable=tuple(found.unreadable),
        problems=(),
        notes=(),
    )
    return _judged(report, found)


def _fills(x: int, y: int, recipe: Recipe) -> bool:
    """Tells whether a picture covers the canvas once it is shrunk to fit, but for a pixel of rounding."""
    height, width = recipe.tokenizer.image_size
    scale = min(1.0, width / x, height / y)
    return x * scale > width - 1 and y * scale > height - 1


def _caption_tokens(rows: list[Row], recipe: Recipe) -> list[int]:
    """Lengths in tokens, the start token included."""
    if not rows:
        return []
    rng, caption = random.Random(0), CAPTION_SOURCES[recipe.caption_source]
    try:
        captions = [caption(row, rng) for row in rows]
    except KeyError as error:
        source = recipe.caption_source
        raise DataError(f"the rows have no column {error}, which caption source {source!r} reads") from error
    text = TextTokenizer.train(captions, recipe.text_vocab)
    return [len(ids) for ids in text.encode_captions(captions, max_length=1 << 20)]


def _judged(report: DataReport, found: _Pictures) -> DataReport:
    return replace(report, problems=tuple(_problems(report)), notes=tuple(_notes(report, found)))


def _problems(report: DataReport) -> list[str]:
    said: list[str] = []
    if report.unreadable:
        said.append(f"{len(report.unreadable)} pictures cannot be read: {_few(report.unreadable)}")
    if not report.num_rows.get(TRAIN):
        said.append(f"no picture is in the split {TRAIN!r}; there are {', '.join(report.num_rows)}")
    return said


def _notes(report: DataReport, found: _Pictures) -> list[str]:
    total, canvas = sum(report.num_pictures.values()), f"{report.canvas[1]}x{report.canvas[0]}"
    trained = report.num_pictures.get(TRAIN, 0)
    said: list[str] = []
    if report.num_shared:
        said.append(
            f"{report.num_shared} pictures outside {TRAIN!r} are in it too, so that held-out figures would "
            f"flatter: {_few(found.shared)}"
        )
    if not report.num_rows.get(SPLITS.get(report.held_out, report.held_out)):
        others = [split for split in report.num_rows if split != TRAIN]
        there = f"; say --split {others[0]}" if others else "; give it a tenth of them"
        said.append(f"no split {report.held_out!r}, on which `oar eval` measures unless another is named{there}")
    if 0 < trained < FEW_PICTURES:
        said.append(f"{trained} training pictures are few: a model learns them by heart")
    if report.num_smaller:
        said.append(
            f"{report.num_smaller} of {total} pictures are at most half as large as the canvas of {canvas}; they "
            "are not enlarged: choose a smaller tokenizer.image_size"
        )
    elif report.num_bordered:
        said.append(f'{report.num_bordered} of {total} pictures get a white border; fit = "crop" fills the canvas')
    if report.num_duplicates.get(TRAIN):
        said.append(f"{report.num_duplicates[TRAIN]} training pictures are there more than once")
    if report.num_cut_captions:
        said.append(f"{report.num_cut_captions} captions are longer than the model reads and are cut")
    if report.num_empty_captions:
        said.append(f"{report.num_empty_captions} captions are empty: those pictures teach nothing about prompts")
    return said


def _few(names: Sequence[str]) -> str:
    shown = "; ".join(islice(names, MOST_EXAMPLES))
    return shown if len(names) <= MOST_EXAMPLES else f"{shown}; ..."


def report_lines(report: DataReport) -> list[str]:
    """The report as lines for people."""
    lines = [
        f"{report.folder}: {report.layout}, on the canvas {report.canvas[1]}x{report.canvas[0]} of {report.recipe}"
    ]
    for split in report.num_rows:
        pictures, rows = report.num_pictures.get(split, 0), report.num_rows[split]
        doubled = report.num_duplicates.get(split, 0)
        lines.append(f"  {split:<6} {pictures} pictures of {rows} rows" + (f", {doubled} repeated" if doubled else ""))
    if report.num_left_out:
        lines.append(f"  {report.num_left_out} rows are left out by the recipe")
    lines.append("  sizes  " + ", ".join(f"{size} ({count})" for size, count in report.sizes.items()))
    for name, lengths in (("characters", report.caption_chars), ("tokens", report.caption_tokens)):
        if lengths is not None:
            lines.append(f"  captions of {lengths.shortest} to {lengths.longest} {name}, median {lengths.median:g}")
    lines += [f"problem: {problem}" for problem in report.problems]
    lines += [f"note: {note}" for note in report.notes]
    return lines if report.problems or report.notes else [*lines, "nothing to complain of"]
