"""Drawn portraits packed for training: the published held-out ones stay held out, and no picture is there twice."""

import csv
import json
import random
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from oar_core.train.layouts import Row, open_layout
from ops.avatars import pack_avatars
from tests.train.avatar_rows import PARTS, draw_row

EACH = 30  # portraits a style
REPEATED = {"lorelei-00005": "lorelei-00003", "personas-00025": "personas-00009", "personas-00027": "micah-00004"}


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """What the generator writes; some pictures equal others."""
    folder, rng = tmp_path / "drawn", random.Random(0)
    rows: list[dict[str, object]] = []
    pool = {style: [] for style in sorted(PARTS)}
    while min(map(len, pool.values())) < EACH:
        row = draw_row(rng)
        pool[row["style"]].append(row)
    for style, found in pool.items():
        (folder / style).mkdir(parents=True)
        for number, row in enumerate(found[:EACH]):
            name = f"{style}-{number:05}"
            extra = {part: value or None for part, value in row.items() if part not in {"style", "background"}}
            extra |= {"backgroundType": "solid", "primaryBackgroundColor": "#ffffff"}
            rows.append(
                {
                    "file": f"{style}/{name}",
                    "style": style,
                    "seed": f"s-{name}",
                    "bg": row["background"],
                    "extra": extra,
                }
            )
            picture(REPEATED.get(name, name)).save(folder / style / f"{name}.png")
    (folder / "rows.json").write_text(json.dumps(rows))
    return folder


def picture(name: str) -> Image.Image:
    rng = random.Random(name)
    image = Image.new("RGB", (16, 16), "white")
    for left in range(0, 16, 4):
        for top in range(0, 16, 4):
            image.paste((rng.randrange(256), rng.randrange(256), rng.randrange(256)), (left, top, left + 4, top + 4))
    return image


def pack(drawn: Path, out: Path, *options: str) -> Result:
    result = CliRunner().invoke(pack_avatars, [str(drawn), str(out), "--published", "20", *options])
    assert result.exit_code == 0, result.output
    return result


def labels(out: Path) -> list[Row]:
    with (out / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_tenth_portrait_of_the_published_ones_is_held_out(drawn: Path, tmp_path: Path) -> None:
    """Counted over all styles, behind the removal of repeated ones."""
    pack(drawn, tmp_path / "out")
    rows = labels(tmp_path / "out")
    held_out = {row["file"] for row in rows if row["split"] == "test"}
    published = [
        f"{style}-{number:05}.webp"
        for style in sorted(PARTS)
        for number in range(20)
        if f"{style}-{number:05}" != "lorelei-00005"
    ]
    assert held_out == set(published[9::10])
    assert {row["split"] for row in rows} == {"train", "test"}


def test_repeated_pictures_are_left_out(drawn: Path, tmp_path: Path) -> None:
    """Those that equal a held-out one, and those of another style, too."""
    result = pack(drawn, tmp_path / "out")
    names = {Path(row["file"]).stem for row in labels(tmp_path / "out")}
    assert not names & set(REPEATED)
    assert len(names) == EACH * len(PARTS) - len(REPEATED)
    assert f"{len(REPEATED)} repeated and left out" in result.output
    packed = {Path(name).stem for path in (tmp_path / "out").glob("*.zip") for name in zipfile.ZipFile(path).namelist()}
    assert packed == names


def test_the_folder_is_one_that_training_reads(drawn: Path, tmp_path: Path) -> None:
    pack(drawn, tmp_path / "out")
    layout = open_layout(tmp_path / "out")
    row = next(row for row in layout.rows if row["file"] == "micah-00004.webp")
    (image,) = layout.read(row)
    assert (image.size, image.format) == ((16, 16), "WEBP")
    assert row["caption"]
    assert not any(column.startswith(("primary", "backgroundT")) for column in row)


def test_captions_are_written_again_without_the_pictures(drawn: Path, tmp_path: Path) -> None:
    pack(drawn, tmp_path / "out")
    before = labels(tmp_path / "out")
    (tmp_path / "out" / "labels.csv").unlink()
    for path in drawn.glob("*/*.png"):
        path.unlink()
    pack(drawn, tmp_path / "out", "--labels-only")
    assert labels(tmp_path / "out") == before
