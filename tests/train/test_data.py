"""Picture folders: the three layouts, the canvas, and what is refused."""

import csv
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from oar_core.errors import DataError
from oar_core.train.data import fit_canvas, load_images


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def write_labels(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_clips_are_cut_into_frames_that_share_a_row(tmp_path: Path) -> None:
    strip = Image.new("RGB", (12, 4))
    for frame, colour in enumerate(("red", "lime", "blue")):
        strip.paste(colour, (4 * frame, 0, 4 * frame + 4, 4))
    with zipfile.ZipFile(tmp_path / "clips.zip", "w") as archive:
        archive.writestr("a.webp", png(strip))
    write_labels(tmp_path / "labels.csv", [{"file": "a.webp", "split": "train", "caption": "stripes"}])
    images = load_images(tmp_path, "train", (4, 4), tmp_path / "cache")
    assert images.pixels[:, 0, 0].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    assert images.captions(torch.tensor([0, 2])) == ["stripes", "stripes"]


def test_archives_are_joined_by_id(tmp_path: Path) -> None:
    for number, name in enumerate(("red", "blue")):
        with zipfile.ZipFile(tmp_path / f"images-{number}.zip", "w") as archive:
            archive.writestr(f"{number}.jpg", png(Image.new("RGB", (4, 4), name)))
    rows = [{"id": str(number), "split": "val", "caption": name} for number, name in ((1, "blue"), (0, "red"))]
    write_labels(tmp_path / "labels.csv", rows)
    images = load_images(tmp_path, "val", (4, 4), tmp_path / "cache")
    assert images.pixels[:, 0, 0].tolist() == [[0, 0, 255], [255, 0, 0]]


def test_batches_are_scaled_to_minus_one_and_one(picture_folder: Path, tmp_path: Path) -> None:
    images = load_images(picture_folder, "train", (16, 16), tmp_path / "cache")
    batch = images.images(torch.tensor([5, 0]))
    assert batch.shape == (2, 3, 16, 16)
    assert batch.max() == 1.0
    assert batch.min() >= -1.0
    expected = torch.from_numpy(np.array(images.pixels[5])).permute(2, 0, 1).float() / 127.5 - 1
    torch.testing.assert_close(batch[0], expected)


def test_splits_do_not_share_pictures(picture_folder: Path, tmp_path: Path) -> None:
    files = [
        {row["file"] for row in load_images(picture_folder, split, (16, 16), tmp_path / "cache").rows}
        for split in ("train", "test")
    ]
    assert files[0].isdisjoint(files[1])
    assert len(files[0] | files[1]) == 60


def test_rows_that_a_recipe_does_not_keep_are_left_out(tmp_path: Path) -> None:
    names = ("red", "blue", "lime")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for name in names:
            archive.writestr(f"{name}.jpg", png(Image.new("RGB", (4, 4), name)))
    rows = [{"id": name, "split": "train", "caption": name, "demo_ok": str(int(name != "blue"))} for name in names]
    write_labels(tmp_path / "labels.csv", rows)
    everything = load_images(tmp_path, "train", (4, 4), tmp_path / "cache")
    kept = load_images(tmp_path, "train", (4, 4), tmp_path / "cache", kept=[("demo_ok", "1")])
    assert everything.captions(torch.arange(3)) == list(names), "the cache tells both apart"
    assert kept.captions(torch.arange(2)) == ["red", "lime"]
    assert kept.pixels[:, 0, 0].tolist() == everything.pixels[[0, 2], 0, 0].tolist()
    with pytest.raises(DataError, match="no column 'shown'"):
        load_images(tmp_path, "train", (4, 4), tmp_path / "cache", kept=[("shown", "1")])


def test_the_cache_is_read_without_the_pictures(picture_folder: Path, tmp_path: Path) -> None:
    first = load_images(picture_folder, "test", (16, 16), tmp_path / "cache")
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    again = load_images(picture_folder, "test", (16, 16), tmp_path / "cache")
    assert np.array_equal(first.pixels, again.pixels)
    assert stamps == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}


def test_pictures_are_centred_on_white_and_never_enlarged() -> None:
    canvas = np.asarray(fit_canvas(Image.new("RGB", (2, 2), "black"), (4, 6)))
    assert canvas.shape == (4, 6, 3)
    assert int((canvas == 0).all(-1).sum()) == 4
    assert (canvas[1:3, 2:4] == 0).all()
    assert np.asarray(fit_canvas(Image.new("RGBA", (6, 4), (0, 0, 0, 0)), (4, 6))).min() == 255


def test_what_cannot_be_read_is_named(tmp_path: Path, picture_folder: Path) -> None:
    with pytest.raises(DataError, match="neither"):
        load_images(tmp_path, "train", (4, 4), tmp_path / "cache")
    with pytest.raises(DataError, match="'val'"):
        load_images(picture_folder, "val", (4, 4), tmp_path / "cache")
    (tmp_path / "metadata.csv").write_text("name\nx\n")
    with pytest.raises(DataError, match="file_name and text"):
        load_images(tmp_path, "train", (4, 4), tmp_path / "cache")
