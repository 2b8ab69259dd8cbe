"""`oar train check`: what it finds, and that it says so to people, programs and shells."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from oar_cli.lab import commands
from oar_core.errors import DataError
from oar_core.train.check import check_data
from oar_core.train.recipe import Recipe
from oar_core.train.recipe_file import load_recipe

RECIPE = 'base = "pictures-64"\ntokenizer.image_size = [16, 16]\nbackbone.max_condition = 8\ntext_vocab = 300\n'


@pytest.fixture
def recipe_path(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def mine(recipe_path: Path) -> Recipe:
    return load_recipe(str(recipe_path))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """48 training and 12 test pictures of 16x16, no two alike, which a test may spoil."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "metadata.csv").write_text("file_name,text,split\n")
    for number in range(60):
        colour = ("red", "green", "blue")[number % 3]
        image = Image.new("RGB", (16, 16), colour)
        image.putpixel((0, 0), (number, number, number))
        image.save(folder / f"{number}.png")
        add(folder, f"{number}.png", f"a {colour} square", "train" if number < 48 else "test")
    return folder


def add(folder: Path, name: str, text: str, split: str) -> None:
    with (folder / "metadata.csv").open("a") as file:
        file.write(f"{name},{text},{split}\n")


def check(*words: str) -> Result:
    return CliRunner().invoke(commands["train"], ["check", *words])


def test_a_good_folder_has_notes_at_most(folder: Path, mine: Recipe) -> None:
    report = check_data(folder, mine)
    assert report.problems == ()
    assert report.num_pictures == report.num_rows == {"test": 12, "train": 48}
    assert report.sizes == {"16x16": 60}
    assert report.caption_chars is not None
    assert (report.caption_chars.shortest, report.caption_chars.longest) == (12, 14)
    assert report.caption_tokens is not None
    assert report.caption_tokens.longest == 4, "start, an article, a colour and a square"
    assert (report.num_smaller, report.num_bordered, report.num_cut_captions, report.num_shared) == (0, 0, 0, 0)
    assert len(report.notes) >= 1
    assert report.notes[0] == "48 training pictures are few: a model learns them by heart"


def test_every_picture_that_cannot_be_read_is_named(folder: Path, mine: Recipe) -> None:
    (folder / "3.png").write_bytes(b"")
    (folder / "5.png").unlink()
    report = check_data(folder, mine)
    assert len(report.unreadable) == 2
    assert report.num_pictures["train"] == 46
    (problem,) = report.problems
    assert problem.startswith("2 pictures cannot be read")
    assert "3.png cannot be read as a picture" in problem
    assert "5.png is missing" in problem


def test_pictures_that_are_there_twice_are_noted(folder: Path, mine: Recipe) -> None:
    """Under another name and in another format it is the same picture."""
    with Image.open(folder / "0.png") as image:
        image.save(folder / "again.webp", lossless=True)
        image.save(folder / "once-more.bmp")
    add(folder, "again.webp", "a red square", "test")
    add(folder, "once-more.bmp", "a red square", "train")
    report = check_data(folder, mine)
    assert report.num_duplicates == {"test": 0, "train": 1}
    assert report.num_shared == 1
    assert "1 pictures outside 'train' are in it too" in report.notes[0]
    assert "again.webp" in report.notes[0]
    assert "1 training pictures are there more than once" in report.notes
    assert report.problems == ()


def test_sizes_and_captions_that_will_surprise_are_noted(folder: Path, mine: Recipe, tmp_path: Path) -> None:
    Image.new("RGB", (64, 32), "red").save(folder / "wide.png")
    Image.new("RGB", (100, 100), "red").save(folder / "square.png")
    add(folder, "wide.png", "q z " * 20, "train")
    add(folder, "square.png", "", "train")
    report = check_data(folder, mine)
    assert report.num_bordered == 1, "the large square one is shrunk to fit"
    assert 'get a white border; fit = "crop" fills the canvas' in "\n".join(report.notes)
    assert "1 captions are longer than the model reads and are cut" in report.notes
    assert "1 captions are empty: those pictures teach nothing about prompts" in report.notes
    (tmp_path / "crop.toml").write_text(RECIPE + 'fit = "crop"')
    assert check_data(folder, load_recipe(str(tmp_path / "crop.toml"))).num_bordered == 0
    large = check_data(folder, load_recipe("pictures-64"))
    assert large.num_smaller == 60
    assert "60 of 62 pictures are at most half as large as the canvas of 64x64" in "\n".join(large.notes)


def test_missing_splits(folder: Path, mine: Recipe) -> None:
    text = (folder / "metadata.csv").read_text()
    (folder / "metadata.csv").write_text(text.replace(",test", ",train"))
    assert "no split 'test'" in check_data(folder, mine).notes[0]
    (folder / "metadata.csv").write_text(text.replace(",train", ",test"))
    report = check_data(folder, mine)
    assert report.problems == ("no picture is in the split 'train'; there are test",)
    assert report.caption_chars is None


def test_the_command_tells_people_programs_and_shells(folder: Path, recipe_path: Path) -> None:
    words = ("--data", str(folder), "--recipe", str(recipe_path))
    result = check(*words)
    assert result.exit_code == 0, result.output
    assert "train  48 pictures of 48 rows" in result.stdout
    assert "captions of 12 to 14 characters" in result.stdout
    (folder / "3.png").unlink()
    result = check(*words, "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["num_pictures"]["train"] == 47
    assert "problem: 1 pictures cannot be read" in check(*words).stdout


def test_captions_are_made_from_columns_that_exist(folder: Path) -> None:
    result = check("--data", str(folder), "--recipe", "sprites-64")
    assert result.exit_code == 1
    assert "which caption source 'sprites' reads" in result.output


def test_the_recipes_own_split_and_rows_are_looked_at(folder: Path, tmp_path: Path) -> None:
    """A recipe that holds out `val` is not told that it lacks `test`, and rows that it leaves out are not read."""
    text = (
        (folder / "metadata.csv").read_text().replace(",test", ",val").replace("text,split", "text,split,fit_for_all")
    )
    lines = text.splitlines()
    rows = [f"{line},{number % 2}" for number, line in enumerate(lines[1:])]
    (folder / "metadata.csv").write_text("\n".join([lines[0], *rows]) + "\n")
    (tmp_path / "val.toml").write_text(RECIPE + 'held_out = "val"\nkept_rows = [["fit_for_all", "1"]]')
    report = check_data(folder, load_recipe(str(tmp_path / "val.toml")))
    assert report.num_rows == {"train": 24, "val": 6}
    assert report.num_left_out == 30
    assert not any("no split" in note for note in report.notes)
    (tmp_path / "none.toml").write_text(RECIPE + 'kept_rows = [["colour", "1"]]')
    with pytest.raises(DataError, match="no column 'colour', by which the recipe picks pictures"):
        check_data(folder, load_recipe(str(tmp_path / "none.toml")))
