"""Folders in the layout that Hugging Face calls ImageFolder, and what is said of those that cannot be read."""

import csv
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from oar_core.errors import DataError
from oar_core.train.data import CROP, fit_canvas, load_images
from oar_core.train.layouts import open_layout

Rows = list[dict[str, Any]]


def write_csv(path: Path, rows: Rows) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_jsonl(path: Path, rows: Rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def paint(path: Path, colour: str = "red", size: tuple[int, int] = (4, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def colours(folder: Path, split: str, cache: Path) -> dict[str, list[int]]:
    """The first pixel under each caption."""
    images = load_images(folder, split, (4, 4), cache)
    pixels = images.pixels[:, 0, 0].tolist()
    return dict(zip(images.captions(torch.arange(len(images))), pixels))


FORMATS = [("metadata.csv", write_csv), ("metadata.jsonl", write_jsonl)]


@pytest.mark.parametrize(("name", "write"), FORMATS)
def test_one_file_for_all_splits(name: str, write: Callable[[Path, Rows], None], tmp_path: Path) -> None:
    """The split is the column's, or else the folder's, or else the training split; pictures lie in nested folders."""
    rows = [
        {"file_name": "train/reds/1.png", "text": "red, and round", "split": ""},
        {"file_name": "test/2.png", "text": "lime", "split": ""},
        {"file_name": "3.png", "text": "blue", "split": "validation"},
        {"file_name": "cats/4.png", "text": "white", "split": ""},
    ]
    for row, colour in zip(rows, ("red", "lime", "blue", "white")):
        paint(tmp_path / row["file_name"], colour)
    write(tmp_path / name, rows)
    assert colours(tmp_path, "train", tmp_path / "c") == {"red, and round": [255, 0, 0], "white": [255, 255, 255]}
    assert colours(tmp_path, "test", tmp_path / "c") == {"lime": [0, 255, 0]}
    assert colours(tmp_path, "validation", tmp_path / "c") == colours(tmp_path, "val", tmp_path / "c")
    assert colours(tmp_path, "val", tmp_path / "c") == {"blue": [0, 0, 255]}


@pytest.mark.parametrize(("name", "write"), FORMATS)
def test_a_file_in_each_split(name: str, write: Callable[[Path, Rows], None], tmp_path: Path) -> None:
    for split, colour in (("train", "red"), ("test", "blue")):
        paint(tmp_path / split / "deep" / "1.png", colour)
        write(tmp_path / split / name, [{"file_name": "deep/1.png", "text": colour}])
    assert colours(tmp_path, "train", tmp_path / "c") == {"red": [255, 0, 0]}
    assert colours(tmp_path, "test", tmp_path / "c") == {"blue": [0, 0, 255]}


def test_other_columns_are_kept_as_texts(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "metadata.jsonl", [{"file_name": "1.png", "text": "a", "year": 1999, "maker": None}])
    (row,) = open_layout(tmp_path).rows
    assert (row["year"], row["maker"]) == ("1999", "")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("metadata.csv", "file_name,caption\n1.png,a\n", "line 2 has no column text; it has file_name, caption"),
        ("metadata.jsonl", '{"text": "a"}\n', "line 1 has no column file_name; it has text"),
        ("metadata.jsonl", '{"file_name": "1.png", "text": "a"}\n{"file', "line 2 is no JSON"),
        ("metadata.jsonl", "[1]\n", "line 1 is no JSON object"),
        ("metadata.csv", "file_name,text\n1.png,a cat, and a dog\n", "line 2 has more fields than columns"),
        ("metadata.csv", "file_name,text\n1.png\n", "line 2 has fewer fields than columns"),
        ("metadata.csv", "file_name,text\n", "has no rows"),
        ("metadata.csv", "file_name,text,split\n1.png,a,trian\n", "1.png is in split 'trian'; there are train, "),
        ("metadata.csv", "file_name,text\n../1.png,a\n", "'../1.png' is no path of a picture in that folder"),
        ("metadata.csv", "file_name,text\n/etc/1.png,a\n", "'/etc/1.png' is no path of a picture in that folder"),
        ("metadata.csv", b"file_name,text\n1.png,\xff\n", "cannot be read"),
    ],
)
def test_what_is_wrong_with_the_labels_is_said(name: str, content: str | bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as error:
        open_layout(tmp_path)
    assert sentence in str(error.value)
    assert name in str(error.value)


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    write_csv(tmp_path / "metadata.csv", [{"file_name": "1.png", "text": "a"}])
    with pytest.raises(DataError, match=r"1\.png is missing"):
        load_images(tmp_path, "train", (4, 4), tmp_path / "c")
    (tmp_path / "1.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"1\.png cannot be read as a picture"):
        load_images(tmp_path, "train", (4, 4), tmp_path / "c")
    paint(tmp_path / "1.png", size=(40, 40))
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"1\.png cannot be read as a picture"):
        load_images(tmp_path, "train", (4, 4), tmp_path / "c")


def test_two_files_of_labels_in_one_folder_are_refused(tmp_path: Path) -> None:
    for name, write in FORMATS:
        write(tmp_path / name, [{"file_name": "1.png", "text": "a"}])
    with pytest.raises(DataError, match=r"has metadata\.csv and metadata\.jsonl; leave one of them"):
        open_layout(tmp_path)


def test_pictures_without_captions_are_told_what_they_need(tmp_path: Path) -> None:
    paint(tmp_path / "cats" / "1.png")
    with pytest.raises(DataError, match=r"has pictures and no captions: it needs a metadata\.csv"):
        open_layout(tmp_path)


def test_a_folder_for_each_class_is_read_in_splits_and_without(tmp_path: Path) -> None:
    for name in ("golden_retriever", "macaw"):
        paint(tmp_path / "split" / "train" / name / "1.png")
        paint(tmp_path / "split" / "validation" / name / "2.png")
        paint(tmp_path / "bare" / name / "1.png")
    rows = open_layout(tmp_path / "split").rows
    assert [(row["file"], row["split"], row["class"]) for row in rows] == [
        ("train/golden_retriever/1.png", "train", "golden_retriever"),
        ("train/macaw/1.png", "train", "macaw"),
        ("validation/golden_retriever/2.png", "val", "golden_retriever"),
        ("validation/macaw/2.png", "val", "macaw"),
    ]
    assert [row["caption"] for row in rows[:2]] == ["golden retriever", "macaw"]
    assert len(load_images(tmp_path / "split", "train", (4, 4), tmp_path / "c")) == 2
    assert [row["split"] for row in open_layout(tmp_path / "bare").rows] == ["train", "train"]


def test_imagenet_s_folders_are_numbered_in_their_order(tmp_path: Path) -> None:
    names = [f"n{10_000_000 + 7 * number}" for number in range(1000)]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").touch()
    rows = open_layout(tmp_path).rows
    assert {row["file"].split("/")[0]: row["class"] for row in rows} == {
        name: str(number) for number, name in enumerate(names)
    }


def test_a_class_stands_for_a_caption(tmp_path: Path) -> None:
    paint(tmp_path / "1.png")
    (tmp_path / "metadata.csv").write_text("file_name,class\n1.png,goldfish\n")
    (row,) = open_layout(tmp_path).rows
    assert (row["class"], row["caption"]) == ("goldfish", "goldfish")
    (tmp_path / "metadata.csv").write_text("file_name,text,class\n1.png,a fish,goldfish\n")
    (row,) = open_layout(tmp_path).rows
    assert (row["class"], row["caption"]) == ("goldfish", "a fish")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.write(tmp_path / "1.png", "1.png")
    (tmp_path / "labels.csv").write_text("id,split,class\n1,train,3\n")
    (row,) = open_layout(tmp_path).rows
    assert (row["id"], row["caption"]) == ("1", "3")


def test_archives_say_what_is_wrong_with_them(tmp_path: Path) -> None:
    (tmp_path / "clips.zip").write_bytes(b"no zip")
    with pytest.raises(DataError, match="is no zip archive"):
        open_layout(tmp_path)
    paint(tmp_path / "strip.png", size=(10, 4))
    with zipfile.ZipFile(tmp_path / "clips.zip", "w") as archive:
        archive.write(tmp_path / "strip.png", "strip.png")
    (tmp_path / "labels.csv").write_text("file,caption\nstrip.png,a\n")
    with pytest.raises(DataError, match="has no column split; it has file, caption"):
        open_layout(tmp_path)
    (tmp_path / "labels.csv").write_text("file,caption,split\nstrip.png,a,train\nother.png,b,train\n")
    layout = open_layout(tmp_path)
    with pytest.raises(DataError, match="is 10x4; a strip's width is a multiple of its height"):
        layout.read(layout.rows[0])
    with pytest.raises(DataError, match=r"other\.png is missing"):
        layout.read(layout.rows[1])


def test_a_changed_picture_or_order_of_rows_is_decoded_anew(tmp_path: Path) -> None:
    """Pictures and captions belong together by their place. The cache knew a folder by its number of rows alone, so
    that rows in another order got each other's pictures."""
    rows = [{"file_name": f"{colour}.png", "text": colour} for colour in ("red", "blue")]
    for row in rows:
        paint(tmp_path / row["file_name"], row["text"])
    write_csv(tmp_path / "metadata.csv", rows)
    first = colours(tmp_path, "train", tmp_path / "c")
    write_csv(tmp_path / "metadata.csv", rows[::-1])
    assert colours(tmp_path, "train", tmp_path / "c") == first
    paint(tmp_path / "red.png", "lime", (5, 5))
    assert colours(tmp_path, "train", tmp_path / "c")["red"] == [0, 255, 0]


def test_a_camera_that_was_held_upright_took_an_upright_picture(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 4), "white")
    image.paste("black", (0, 0, 2, 4))  # the left end, which is up once it is turned
    exif = image.getexif()
    exif[0x0112] = 6  # turn right
    image.save(tmp_path / "1.png", exif=exif)
    write_csv(tmp_path / "metadata.csv", [{"file_name": "1.png", "text": "a"}])
    pixels = load_images(tmp_path, "train", (8, 4), tmp_path / "c").pixels[0]
    assert (pixels[:2] == 0).all()
    assert (pixels[3:] == 255).all()


def test_cropped_pictures_fill_the_canvas() -> None:
    image = Image.new("RGB", (40, 20), "red")
    image.paste("lime", (15, 0, 25, 20))
    canvas = np.asarray(fit_canvas(image, (8, 8), CROP))
    assert canvas.shape == (8, 8, 3)
    assert (canvas[:, 3:5] == [0, 255, 0]).all(), "the middle stays the middle"
    assert not (canvas == 255).all(-1).any(), "no border"
    assert np.asarray(fit_canvas(Image.new("RGB", (2, 3), "red"), (8, 4), CROP)).tolist() == [[[255, 0, 0]] * 4] * 8


# archives by style


@pytest.fixture
def styles(tmp_path: Path) -> Path:
    """Two styles of one picture each, under one name."""
    folder = tmp_path / "styles"
    folder.mkdir()
    rows = [
        {"style": "ink", "file": "1.png", "split": "train", "caption": "black"},
        {"style": "flat", "file": "1.png", "split": "test", "caption": "lime"},
    ]
    write_csv(folder / "labels.csv", rows)
    for row in rows:
        paint(tmp_path / "drawn" / row["style"] / row["file"], row["caption"])
        with zipfile.ZipFile(folder / f"{row['style']}.zip", "w") as archive:
            archive.write(tmp_path / "drawn" / row["style"] / row["file"], row["file"])
    return folder


def test_each_style_has_its_archive(styles: Path, tmp_path: Path) -> None:
    assert open_layout(styles).kind == "style archives"
    assert colours(styles, "train", tmp_path / "c") == {"black": [0, 0, 0]}
    assert colours(styles, "test", tmp_path / "c") == {"lime": [0, 255, 0]}


def test_a_missing_archive_of_a_style_is_named(styles: Path) -> None:
    (styles / "ink.zip").unlink()
    with pytest.raises(DataError, match=r"ink\.zip is missing, which .*labels\.csv names by its style"):
        open_layout(styles)


@pytest.mark.parametrize("column", ["style", "file", "split", "caption"])
def test_a_missing_column_of_archives_by_style_is_named(styles: Path, column: str) -> None:
    text = (styles / "labels.csv").read_text()
    (styles / "labels.csv").write_text(text.replace(column, "other", 1))
    with pytest.raises(DataError, match=f"line 2 has no column {column}"):
        open_layout(styles)


def test_a_picture_that_a_styles_archive_lacks_is_named(styles: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(styles / "ink.zip", "w") as archive:
        archive.writestr("2.png", b"")
    with pytest.raises(DataError, match=r"1\.png in .*ink\.zip is missing"):
        load_images(styles, "train", (4, 4), tmp_path / "c")
