"""Training pictures with captions, read from a folder once and kept decoded in a memory-mapped cache.

Three layouts are known: `clips.zip` + `labels.csv` (strips of square frames side by side), `images-*.zip` or
`images.zip` + `labels.csv`, and a plain folder of pictures with a `metadata.csv` (`file_name,text[,split]`, the layout
that Hugging Face calls ImageFolder).
"""

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from oar_core.errors import DataError

Row = dict[str, str]


@dataclass(frozen=True)
class ImageSet:
    """Pictures of one split. `rows[r]` is a label row; picture i belongs to row `row_of[i]` (clips share a row)."""

    pixels: UInt8[np.ndarray, "M Y X 3"]
    rows: list[Row]
    row_of: Int[np.ndarray, "M"]

    def __len__(self) -> int:
        return len(self.pixels)

    def images(self, indices: Int[Tensor, "B"]) -> Float[Tensor, "B 3 Y X"]:
        """Pixels in [-1, 1]."""
        batch = torch.from_numpy(self.pixels[indices.numpy()])
        return batch.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)

    def captions(self, indices: Int[Tensor, "B"]) -> list[str]:
        return [self.rows[self.row_of[index]]["caption"] for index in indices.tolist()]


def load_images(
    folder: Path, split: str, size: tuple[int, int], cache: Path, kept: Sequence[tuple[str, str]] = ()
) -> ImageSet:
    """The pictures of `split`, fitted on a white canvas of `size` (Y, X); decoded once into `cache`. Rows that lack a
    value of `kept` (column, value) are left out.

    Raises DataError when the folder has no known layout, no such split or column, or a picture is missing.
    """
    rows, read = _open_layout(folder)
    missing = [column for column, _ in kept if rows and column not in rows[0]]
    if missing:
        raise DataError(f"the label rows have no column {missing[0]!r}, by which the recipe picks pictures")
    chosen = [row for row in rows if row["split"] == split and all(row[column] == value for column, value in kept)]
    if not chosen:
        raise DataError(f"{folder} has no pictures in split {split!r}; it has {sorted({row['split'] for row in rows})}")
    of_rows = [len(rows), *map(list, kept)]
    key = hashlib.sha256(json.dumps([str(folder.resolve()), split, size, *of_rows, 1]).encode()).hexdigest()[:16]
    pixels_path, owner_path = cache / f"{key}.pixels.npy", cache / f"{key}.rows.npy"
    if not (pixels_path.exists() and owner_path.exists()):
        cache.mkdir(parents=True, exist_ok=True)
        _decode(chosen, read, size, pixels_path, owner_path)
    return ImageSet(np.load(pixels_path, mmap_mode="r"), chosen, np.load(owner_path))


def fit_canvas(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Shrinks (never enlarges) to fit, centred on white; transparency is laid over white."""
    height, width = size
    rgba = image.convert("RGBA")
    if rgba.width > width or rgba.height > height:
        rgba.thumbnail((width, height), Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (width, height), "white")
    canvas.alpha_composite(rgba, ((width - rgba.width) // 2, (height - rgba.height) // 2))
    return canvas.convert("RGB")


Reader = Callable[[Row], list[Image.Image]]


def _open_layout(folder: Path) -> tuple[list[Row], Reader]:
    if (folder / "clips.zip").exists():
        return _rows(folder / "labels.csv"), _clip_reader(folder / "clips.zip")
    archives = sorted(folder.glob("images*.zip"))
    if archives:
        return _rows(folder / "labels.csv"), _archive_reader(archives)
    if (folder / "metadata.csv").exists():
        return _metadata_rows(folder / "metadata.csv"), lambda row: [Image.open(folder / row["file"])]
    raise DataError(f"{folder} holds neither clips.zip, images*.zip nor metadata.csv")


def _rows(path: Path) -> list[Row]:
    if not path.exists():
        raise DataError(f"{path} is missing")
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def _metadata_rows(path: Path) -> list[Row]:
    rows = _rows(path)
    if rows and not {"file_name", "text"} <= set(rows[0]):
        raise DataError(f"{path} needs the columns file_name and text")
    return [
        {**row, "file": row["file_name"], "caption": row["text"], "split": row.get("split", "train")} for row in rows
    ]


def _clip_reader(path: Path) -> Reader:
    archive = zipfile.ZipFile(path)

    def read(row: Row) -> list[Image.Image]:
        strip = Image.open(io.BytesIO(archive.read(row["file"])))
        side = strip.height
        return [strip.crop((left, 0, left + side, side)) for left in range(0, strip.width, side)]

    return read


def _archive_reader(paths: list[Path]) -> Reader:
    archives = [zipfile.ZipFile(path) for path in paths]
    owner = {name: archive for archive in archives for name in archive.namelist()}
    by_stem = {Path(name).stem: name for name in owner}

    def read(row: Row) -> list[Image.Image]:
        name = by_stem.get(row["id"])
        if name is None:
            raise DataError(f"no picture for id {row['id']}")
        return [Image.open(io.BytesIO(owner[name].read(name)))]

    return read


def _decode(rows: list[Row], read: Reader, size: tuple[int, int], pixels_path: Path, owner_path: Path) -> None:
    frames: list[np.ndarray] = []
    owners: list[int] = []
    for number, image in _frames(rows, read):
        frames.append(np.asarray(fit_canvas(image, size)))
        owners.append(number)
    for path, array in ((pixels_path, np.stack(frames)), (owner_path, np.array(owners, dtype=np.int32))):
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.save(file, array)
        part.replace(path)


def _frames(rows: list[Row], read: Reader) -> Iterator[tuple[int, Image.Image]]:
    for number, row in enumerate(tqdm(rows, desc="decoding", unit="file")):
        for image in read(row):
            yield number, image
