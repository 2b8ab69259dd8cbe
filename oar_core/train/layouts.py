"""Known layouts of training folders: pictures, their captions and splits.

- `clips.zip` + `labels.csv` (`file,split,caption`): strips of square frames side by side.
- `images.zip` or `images-*.zip` + `labels.csv` (`id,split,caption`): a picture's name without its suffix is its id.
- `<style>.zip` for each value of the column `style` of `labels.csv` (`style,file,split,caption`), which holds `file`.
- What Hugging Face calls ImageFolder: pictures in a folder or in folders of it, and a `metadata.csv` or
  `metadata.jsonl` (`file_name,text`) in the folder or in each split's folder. A picture's split is what its row says in
  the column `split`, or else the folder that it lies in, or else `train`.
- A folder for each class, in the folder or in each split's, and no table: `train/goldfish/1.jpg`. The folder's name is
  the class and the caption; 1,000 folders named as ImageNet's, `n01440764`, are numbered in their order.

In the tables, a column `class` stands for the caption where there is none.
"""

import csv
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image, ImageOps

from oar_core.errors import DataError

Row = dict[str, str]
Reader = Callable[[Row], list[Image.Image]]

LABELS = "labels.csv"
METADATA = ("metadata.csv", "metadata.jsonl")
FILE_NAME, TEXT = "file_name", "text"
TRAIN, VALIDATION, TEST = "train", "val", "test"
# Each split under the names that folders and columns have for it.
SPLITS = {
    **dict.fromkeys((TRAIN, "training"), TRAIN),
    **dict.fromkeys((VALIDATION, "valid", "validation", "dev"), VALIDATION),
    **dict.fromkeys((TEST, "testing", "eval", "evaluation"), TEST),
}
NUM_IMAGENET, WORDNET = 1000, re.compile(r"n\d{8}")  # its classes, and how their folders are named
PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}


@dataclass(frozen=True)
class DataLayout:
    """`rows` have `split` and `caption`; `read` decodes a row's pictures and raises DataError with the file's name."""

    kind: str
    rows: list[Row]
    read: Reader
    files: Callable[[Row], Path]  # where a row's pictures lie: their folder's file, or the archive


def open_layout(folder: Path) -> DataLayout:
    """Raises DataError for a folder of no known layout, and for labels that cannot be read."""
    if (folder / "clips.zip").exists():
        return _clips(folder)
    archives = sorted(folder.glob("images*.zip"))
    if archives:
        return _archives(folder, archives)
    metadata = _find_metadata(folder)
    if metadata:
        return _image_folder(folder, metadata)
    if (folder / LABELS).exists() and any(folder.glob("*.zip")):
        return _styles(folder)
    has_pictures = any(path.suffix.lower() in PICTURES for path in folder.rglob("*"))
    classes = _find_classes(folder)
    if len({path.name for _, path in classes}) > 1:
        return _class_folders(folder, classes)
    lacking = "has pictures and no captions: it needs" if has_pictures else "holds neither clips.zip, images*.zip nor"
    raise DataError(f"{folder} {lacking} a metadata.csv or metadata.jsonl with {FILE_NAME} and {TEXT}")


# archives


def _clips(folder: Path) -> DataLayout:
    path = folder / "clips.zip"
    archive = _open_zip(path)

    def read(row: Row) -> list[Image.Image]:
        strip = _decoded(row["file"], lambda: Image.open(io.BytesIO(archive.read(row["file"]))))
        side = strip.height
        if strip.width % side:
            size = f"{strip.width}x{side}"
            raise DataError(f"{row['file']} in {path} is {size}; a strip's width is a multiple of its height")
        return [strip.crop((left, 0, left + side, side)) for left in range(0, strip.width, side)]

    return DataLayout("clips.zip", _label_rows(folder, "file"), read, lambda _row: path)


def _archives(folder: Path, paths: list[Path]) -> DataLayout:
    archives = [(path, _open_zip(path)) for path in paths]
    owner = {name: (path, archive) for path, archive in archives for name in archive.namelist()}
    by_stem = {PurePosixPath(name).stem: name for name in owner}

    def find(row: Row) -> str:
        name = by_stem.get(row["id"])
        if name is None:
            raise DataError(f"no picture for id {row['id']}")
        return name

    def read(row: Row) -> list[Image.Image]:
        name = find(row)
        return [_decoded(name, lambda: Image.open(io.BytesIO(owner[name][1].read(name))))]

    return DataLayout("images.zip", _label_rows(folder, "id"), read, lambda row: owner[find(row)][0])


def _styles(folder: Path) -> DataLayout:
    rows = _label_rows(folder, "style", "file")
    paths = {style: folder / f"{style}.zip" for style in dict.fromkeys(row["style"] for row in rows)}
    for path in paths.values():
        if not path.exists():
            raise DataError(f"{path} is missing, which {folder / LABELS} names by its style")
    archives = {style: _open_zip(path) for style, path in paths.items()}

    def read(row: Row) -> list[Image.Image]:
        name = f"{row['file']} in {paths[row['style']]}"
        return [_decoded(name, lambda: Image.open(io.BytesIO(archives[row["style"]].read(row["file"]))))]

    return DataLayout("style archives", rows, read, lambda row: paths[row["style"]])


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} is no zip archive") from error


def _label_rows(folder: Path, *keys: str) -> list[Row]:
    path = folder / LABELS
    if not path.exists():
        raise DataError(f"{path} is missing")
    rows = _csv_rows(path)
    return list(_checked(path, _captioned(rows, "caption"), (*keys, "split", "caption")))


# ImageFolder


def _find_metadata(folder: Path) -> list[Path]:
    """The folder's own, or those of the folders in it. Raises DataError for two of one folder."""
    places = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    found = [[place / name for name in METADATA if (place / name).exists()] for place in places]
    for paths in found:
        if len(paths) > 1:
            raise DataError(f"{paths[0].parent} has {paths[0].name} and {paths[1].name}; leave one of them")
    return found[0] or [path for paths in found for path in paths]


def _image_folder(folder: Path, metadata: list[Path]) -> DataLayout:
    rows: list[Row] = []
    for path in metadata:
        read_rows = _csv_rows if path.suffix == ".csv" else _jsonl_rows
        rows += [
            _picture_row(folder, path, row)
            for row in _checked(path, _captioned(read_rows(path), TEXT), (FILE_NAME, TEXT))
        ]

    return DataLayout("ImageFolder", rows, _picture_reader(folder), lambda row: folder / row["file"])


def _picture_reader(folder: Path) -> Reader:
    def read(row: Row) -> list[Image.Image]:
        path = folder / row["file"]
        # Cameras store a picture as the sensor saw it, and beside it how the camera was held.
        return [_decoded(str(path), lambda: ImageOps.exif_transpose(Image.open(io.BytesIO(path.read_bytes()))))]

    return read


def _picture_row(folder: Path, metadata: Path, row: Row) -> Row:
    name = row[FILE_NAME]
    if not name or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise DataError(f"{metadata}: {FILE_NAME} {name!r} is no path of a picture in that folder")
    file = PurePosixPath(metadata.parent.relative_to(folder).as_posix()) / name
    said = row.get("split") or (file.parts[0] if len(file.parts) > 1 else TRAIN)
    split = SPLITS.get(said.strip().lower())
    if split is None and row.get("split"):
        raise DataError(f"{metadata}: {name} is in split {said!r}; there are {', '.join(SPLITS)}")
    return {**row, "file": str(file), "caption": row[TEXT], "split": split or TRAIN}


# a folder for each class


def _find_classes(folder: Path) -> list[tuple[str, Path]]:
    """Each class folder and its split: in folders that are called as splits are, or in the folder itself, and then in
    split `train`. None where pictures lie beside them."""
    folders = sorted(path for path in folder.iterdir() if path.is_dir())
    splits = [path for path in folders if path.name.lower() in SPLITS]
    found = [
        (SPLITS[split.name.lower()], path) for split in splits for path in sorted(split.iterdir()) if path.is_dir()
    ]
    found = found if splits else [(TRAIN, path) for path in folders]
    is_flat = any(_pictures_in(path) for path in (folder, *splits))
    return [] if is_flat else [(split, path) for split, path in found if _pictures_in(path)]


def _pictures_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES and path.is_file())


def _class_folders(folder: Path, classes: list[tuple[str, Path]]) -> DataLayout:
    names = sorted({path.name for _, path in classes})
    is_imagenet = len(names) == NUM_IMAGENET and all(WORDNET.fullmatch(name) for name in names)
    called = {name: str(number) if is_imagenet else name for number, name in enumerate(names)}
    rows = [
        {
            "file": picture.relative_to(folder).as_posix(),
            "split": split,
            "caption": called[path.name].replace("_", " "),
            "class": called[path.name],
        }
        for split, path in classes
        for picture in _pictures_in(path)
    ]
    return DataLayout("a folder for each class", rows, _picture_reader(folder), lambda row: folder / row["file"])


# tables


def _captioned(rows: Iterable[tuple[int, dict[Any, Any]]], column: str) -> Iterator[tuple[int, dict[Any, Any]]]:
    """Rows whose class is their caption, where they have no caption."""
    for number, row in rows:
        yield number, {**row, column: row["class"]} if "class" in row and column not in row else row


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[Any, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        try:
            for row in reader:
                yield reader.line_num, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path} line {reader.line_num + 1} cannot be read: {error}") from error


def _jsonl_rows(path: Path) -> Iterator[tuple[int, dict[Any, Any]]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path} line {number} is no JSON: {error}") from error
            if not isinstance(row, dict):
                raise DataError(f"{path} line {number} is no JSON object")
            yield number, row


def _checked(path: Path, rows: Iterable[tuple[int, dict[Any, Any]]], columns: tuple[str, ...]) -> Iterator[Row]:
    """Rows of texts that have these columns. Raises DataError with the line."""
    is_empty = True
    for number, row in rows:
        is_empty = False
        missing = [column for column in columns if column not in row]
        if missing:
            has = ", ".join(map(str, filter(None, row)))
            raise DataError(f"{path} line {number} has no column {' and '.join(missing)}; it has {has}")
        if None in row:
            raise DataError(f"{path} line {number} has more fields than columns; a text with a comma needs quotes")
        if None in (row[column] for column in columns):
            raise DataError(f"{path} line {number} has fewer fields than columns")
        yield {str(name): "" if value is None else str(value) for name, value in row.items()}
    if is_empty:
        raise DataError(f"{path} has no rows")


def _decoded(name: str, open_: Callable[[], Image.Image]) -> Image.Image:
    """The picture with its pixels read. Raises DataError with its name."""
    try:
        image = open_()
        image.load()
    except (FileNotFoundError, KeyError) as error:
        raise DataError(f"{name} is missing") from error
    except (OSError, SyntaxError, ValueError, zipfile.BadZipFile, Image.DecompressionBombError) as error:
        raise DataError(f"{name} cannot be read as a picture: {error}") from error
    return image
