"""Training pictures with captions, read from a folder once and kept decoded in a memory-mapped cache."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from oar_core.errors import DataError
from oar_core.new_file import new_file
from oar_core.train.layouts import SPLITS, DataLayout, Row, open_layout

PAD, CROP = "pad", "crop"
FITS = (PAD, CROP)


@dataclass(frozen=True)
class ImageSet:
    """Pictures of one split. `rows[r]` is a label row; picture i belongs to row `row_of[i]` (clips share a row)."""

    pixels: UInt8[np.ndarray, "M Y X 3"]
    rows: list[Row]
    row_of: Int[np.ndarray, "M"]

    @cached_property
    def digest(self) -> str:
        """Digest of the pixels, whatever files they come from."""
        return hashlib.sha256(np.ascontiguousarray(self.pixels).data).hexdigest()

    def __len__(self) -> int:
        return len(self.pixels)

    def images(self, indices: Int[Tensor, "B"]) -> Float[Tensor, "B 3 Y X"]:
        """Pixels in [-1, 1]."""
        batch = torch.from_numpy(self.pixels[indices.numpy()])
        return batch.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)

    def captions(self, indices: Int[Tensor, "B"]) -> list[str]:
        return [self.rows[self.row_of[index]]["caption"] for index in indices.tolist()]


def load_images(
    folder: Path, split: str, size: tuple[int, int], cache: Path, fit: str = PAD, kept: Sequence[tuple[str, str]] = ()
) -> ImageSet:
    """The pictures of `split` on a canvas of `size` (Y, X), as `fit` says; decoded once into `cache`. Rows that lack a
    value of `kept` (column, value) are left out.

    Raises DataError when the folder has no known layout, no such split or column, or a picture cannot be read.
    """
    layout = open_layout(folder)
    chosen = [row for row in keep_rows(layout.rows, kept) if row["split"] in {split, SPLITS.get(split)}]
    if not chosen:
        has = sorted({row["split"] for row in layout.rows})
        raise DataError(f"{folder} has no pictures in split {split!r}; it has {', '.join(map(repr, has))}")
    key = _key(folder, layout, chosen, [split, size, fit])
    pixels_path, owner_path = cache / f"{key}.pixels.npy", cache / f"{key}.rows.npy"
    if not (pixels_path.exists() and owner_path.exists()):
        _decode(chosen, layout, size, fit, (pixels_path, owner_path))
    return ImageSet(np.load(pixels_path, mmap_mode="r"), chosen, np.load(owner_path))


def keep_rows(rows: list[Row], kept: Sequence[tuple[str, str]]) -> list[Row]:
    """The rows that have all values of `kept` (column, value). Raises DataError for a column that they lack."""
    missing = [column for column, _ in kept if rows and column not in rows[0]]
    if missing:
        raise DataError(f"the label rows have no column {missing[0]!r}, by which the recipe picks pictures")
    return [row for row in rows if all(row[column] == value for column, value in kept)]


def _key(folder: Path, layout: DataLayout, rows: list[Row], params: list[Any]) -> str:
    """Another one when a file was changed, or a row moved: pictures and captions belong together by their place."""
    facts: list[Any] = [str(folder.resolve()), *params, 2]
    stamps: dict[Path, tuple[int, int]] = {}
    for row in rows:
        path = layout.files(row)
        if path not in stamps:
            try:
                stat = path.stat()
            except FileNotFoundError as error:
                raise DataError(f"{path} is missing") from error
            stamps[path] = (stat.st_size, stat.st_mtime_ns)
        facts.append((row.get("file") or row.get("id"), stamps[path]))
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def fit_canvas(image: Image.Image, size: tuple[int, int], fit: str = PAD) -> Image.Image:
    """A picture on a canvas of `size` (Y, X); transparency is laid over white.

    `pad` shrinks (never enlarges) until all of it is there, centred on white. `crop` scales until it covers the canvas
    and cuts off what stands out.
    """
    height, width = size
    rgba = image.convert("RGBA")
    if fit == CROP:
        scale = max(width / rgba.width, height / rgba.height)
        scaled = max(width, round(rgba.width * scale)), max(height, round(rgba.height * scale))
        if scaled != rgba.size:
            rgba = rgba.resize(scaled, Image.Resampling.LANCZOS)
    elif rgba.width > width or rgba.height > height:
        rgba.thumbnail((width, height), Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (width, height), "white")
    left, top = (width - rgba.width) // 2, (height - rgba.height) // 2
    canvas.alpha_composite(rgba, (max(left, 0), max(top, 0)), (max(-left, 0), max(-top, 0)))
    return canvas.convert("RGB")


def _decode(rows: list[Row], layout: DataLayout, size: tuple[int, int], fit: str, paths: tuple[Path, Path]) -> None:
    frames: list[np.ndarray] = []
    owners: list[int] = []
    for number, image in _frames(rows, layout):
        frames.append(np.asarray(fit_canvas(image, size, fit)))
        owners.append(number)
    for path, array in zip(paths, (np.stack(frames), np.array(owners, dtype=np.int32))):
        with new_file(path) as part:
            np.save(part, array)


def _frames(rows: list[Row], layout: DataLayout) -> Iterator[tuple[int, Image.Image]]:
    for number, row in enumerate(tqdm(rows, desc="decoding", unit="file")):
        for image in layout.read(row):
            yield number, image
