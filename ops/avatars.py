"""Packs drawn portraits for training: `python -m ops.avatars PICTURES OUT`.

`PICTURES` is what `ops/avatars.mjs` writes: `<style>/<style>-<number>.png` and `rows.json`. `OUT` becomes a training
folder of one archive a style (see `oar_core.train.layouts`): WebP pictures and `labels.csv` with every part and colour.

The published set of 2,000 portraits a style holds every tenth one out. A larger output begins with the same portraits,
so the same ones are held out here, and a picture that looks like an earlier one to the pixel is left out.
"""

import csv
import hashlib
import io
import json
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from PIL import Image
from tqdm import tqdm

from oar_core.train.avatar_captions import AvatarCaptions
from oar_core.train.layouts import LABELS, TEST, TRAIN

Row = dict[str, str]

ROWS = "rows.json"
QUALITY, METHOD = 86, 4  # of WebP
PUBLISHED = 2000  # portraits a style in the set that was published first
HELD_OUT = 10  # every one of so many is held out
NO_PARTS = ("primaryBackground", "secondaryBackground", "background")  # the generator's other names of the background


def read_rows(path: Path) -> list[Row]:
    """A row of texts for each picture, in the generator's order; a part that a portrait lacks is empty."""
    drawn: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    parts = sorted({part for row in drawn for part in row["extra"] if not part.startswith(NO_PARTS)})
    return [
        {
            "style": row["style"],
            "file": f"{Path(row['file']).name}.webp",
            "background": row["bg"],
            "seed": row["seed"],
            **{part: row["extra"].get(part) or "" for part in parts},
        }
        for row in drawn
    ]


def published_first(rows: list[Row], published: int) -> tuple[list[Row], list[Row]]:
    """The first portraits of each style, and the others."""
    first: list[Row] = []
    others: list[Row] = []
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["style"]] = counts.get(row["style"], 0) + 1
        (first if counts[row["style"]] <= published else others).append(row)
    return first, others


def pack_pictures(rows: list[Row], pictures: Path, out: Path) -> list[Row]:
    """Writes the archives. Returns the rows whose pictures no earlier one equals."""
    seen: set[bytes] = set()
    kept: list[Row] = []
    archives = {style: zipfile.ZipFile(out / f"{style}.zip", "w") for style in {row["style"]: None for row in rows}}
    for row, encoded in _encoded(rows, pictures):
        digest = hashlib.sha256(encoded).digest()
        if digest not in seen:
            seen.add(digest)
            kept.append(row)
            archives[row["style"]].writestr(row["file"], encoded)
    for archive in archives.values():
        archive.close()
    return kept


def _encoded(rows: list[Row], pictures: Path) -> Iterator[tuple[Row, bytes]]:
    for row in tqdm(rows, desc="packing", unit="file"):
        buffer = io.BytesIO()
        with Image.open(pictures / row["style"] / Path(row["file"]).with_suffix(".png")) as image:
            image.convert("RGB").save(buffer, "WEBP", quality=QUALITY, method=METHOD)
        yield row, buffer.getvalue()


def packed(rows: list[Row], out: Path) -> list[Row]:
    """The rows whose pictures are in the archives."""
    names = {path.stem: set(zipfile.ZipFile(path).namelist()) for path in out.glob("*.zip")}
    return [row for row in rows if row["file"] in names.get(row["style"], ())]


def label(first: list[Row], others: list[Row]) -> list[Row]:
    """Splits and captions. A caption names all that a prompt decides; its wording is drawn from the portrait's seed."""
    caption = AvatarCaptions.complete()
    splits = [TEST if number % HELD_OUT == HELD_OUT - 1 else TRAIN for number in range(len(first))]
    splits += [TRAIN] * len(others)
    labelled: list[Row] = []
    for row, split in zip([*first, *others], splits, strict=True):
        head = {"style": row["style"], "file": row["file"], "split": split}
        labelled.append({**head, "caption": caption(row, random.Random(row["seed"])), **row})
    return labelled


@click.command(help=__doc__)
@click.argument("pictures", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--labels-only", is_flag=True, help="Write labels.csv again for archives that exist: other captions.")
@click.option("--published", default=PUBLISHED, show_default=True, help="First portraits a style; a tenth is held out.")
def pack_avatars(pictures: Path, out: Path, labels_only: bool, published: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    first, others = published_first(read_rows(pictures / ROWS), published)
    rows = [*first, *others]
    kept = packed(rows, out) if labels_only else pack_pictures(rows, pictures, out)
    names = {row["file"] for row in first}
    labelled = label([row for row in kept if row["file"] in names], [row for row in kept if row["file"] not in names])
    with (out / LABELS).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(labelled[0]))
        writer.writeheader()
        writer.writerows(labelled)
    held_out = sum(row["split"] == TEST for row in labelled)
    click.echo(f"{len(labelled)} pictures, {held_out} of them held out; {len(rows) - len(kept)} repeated and left out")


if __name__ == "__main__":
    pack_avatars()
