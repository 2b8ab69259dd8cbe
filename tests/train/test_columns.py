"""Columns that are derived from label columns, and the recipe whose evaluator reads them."""

import csv
import random
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from oar_core.errors import ConfigError, DataError
from oar_core.train.attributes import AttributeVocabulary
from oar_core.train.avatar_looks import draw_look
from oar_core.train.captions import CAPTION_SOURCES
from oar_core.train.check import check_data
from oar_core.train.columns import COLUMN_SOURCES, add_columns
from oar_core.train.recipe_file import load_recipe
from oar_core.train.recipes import RECIPES, find_recipe
from oar_core.train.run import Run
from oar_core.train.run_data import load_pictures
from tests.train.avatar_rows import draw_row


@pytest.fixture
def avatars(tmp_path: Path) -> Path:
    """Sixty plain pictures with the labels of portraits, an archive a style."""
    folder, rng = tmp_path / "avatars", random.Random(0)
    folder.mkdir()
    drawn = [draw_row(rng) for _ in range(60)]
    columns = sorted({column for row in drawn for column in row})
    rows = [
        {
            **dict.fromkeys(columns, ""),
            **row,
            "file": f"{number}.webp",
            "split": "test" if number % 10 == 9 else "train",
            "caption": CAPTION_SOURCES["avatars"](row, rng),
        }
        for number, row in enumerate(drawn)
    ]
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for number, row in enumerate(rows):
        path = tmp_path / row["file"]
        Image.new("RGB", (128, 128), (number, 100, 200)).save(path)
        with zipfile.ZipFile(folder / f"{row['style']}.zip", "a") as archive:
            archive.write(path, row["file"])
    return folder


def test_a_runs_rows_have_the_columns_that_its_evaluator_reads(avatars: Path, tmp_path: Path) -> None:
    made = find_recipe("avatars-128")
    images = load_pictures(Run(made, avatars, tmp_path / "run", torch.device("cpu")), "train")
    assert len(images) == 54
    assert all(row["look_hair"] == draw_look(row)["hair"] for row in images.rows)
    vocabulary = AttributeVocabulary.build(made.attributes, images.rows)
    assert vocabulary.encode(images.rows).shape == (54, len(made.attributes))
    assert "" not in vocabulary.classes["look_hair"]


def test_a_recipe_that_adds_no_columns_reads_them_as_they_are(avatars: Path, tmp_path: Path) -> None:
    plain = replace(find_recipe("avatars-128"), column_source="")
    images = load_pictures(Run(plain, avatars, tmp_path / "run", torch.device("cpu")), "test")
    assert not any(column.startswith("look_") for column in images.rows[0])
    with pytest.raises(DataError, match="no column 'look_skin'"):
        AttributeVocabulary.build(plain.attributes, images.rows)


def test_what_a_source_lacks_is_named() -> None:
    with pytest.raises(DataError, match="no column or value 'hair', which column source 'avatars' reads"):
        add_columns([{"style": "personas"}], "avatars")


def test_an_unknown_source_in_a_file_is_refused_with_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('base = "avatars-128"\ncolumn_source = "avatar"\n')
    with pytest.raises(ConfigError, match=r"unknown column_source 'avatar'.*avatars"):
        load_recipe(str(path))
    path.write_text('base = "avatars-128"\ncolumn_source = ""\n')
    assert load_recipe(str(path)).column_source == ""


def test_recipes_name_sources_that_exist() -> None:
    made = [make() for make in RECIPES.values()]
    assert {one.column_source for one in made} <= {"", *COLUMN_SOURCES}
    assert {one.caption_source for one in made} <= set(CAPTION_SOURCES)


def test_avatars_are_checked_before_hours_are_spent(avatars: Path) -> None:
    made = find_recipe("avatars-128")
    report = check_data(avatars, made)
    assert report.problems == ()
    assert report.layout == "style archives"
    assert report.num_pictures == {"test": 6, "train": 54}
    assert report.num_cut_captions == 0
    assert made.tokenizer.upsample == "nearest"
    assert not made.tokenizer_stage.has_adversary
