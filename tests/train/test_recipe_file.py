"""Recipes as files: what they change, what follows from it, and what is refused with the nearest name."""

from dataclasses import replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from oar_cli.lab import commands
from oar_cli.lab_options import recipe_option
from oar_core.errors import ConfigError
from oar_core.train.attributes import Attribute
from oar_core.train.loop import LoopConfig
from oar_core.train.recipe import Recipe
from oar_core.train.recipe_file import load_recipe
from oar_core.train.recipes import RECIPES, find_recipe

MINE = """
base = "pictures-64"
licence = "CC0-1.0"
fit = "crop"
example_prompts = ["a tulip", "a rose"]
tokenizer.image_size = [96, 64]
any_order_loop.num_images = 1000
any_order_loop.optim.lr = 1
any_order_loop.optim.betas = [0.8, 0.9]

[[attributes]]
column = "kind"
max_classes = 5
"""


def write(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


def test_a_file_changes_its_base_and_nothing_else(tmp_path: Path) -> None:
    base, mine = find_recipe("pictures-64"), load_recipe(write(tmp_path, MINE))
    optim = replace(base.any_order_loop.optim, lr=1.0, betas=(0.8, 0.9))
    assert mine == replace(
        base,
        name="mine",
        licence="CC0-1.0",
        fit="crop",
        example_prompts=("a tulip", "a rose"),
        tokenizer=replace(base.tokenizer, image_size=(96, 64)),
        backbone=replace(base.backbone, grid=(12, 8)),
        any_order_loop=replace(base.any_order_loop, num_images=1000, optim=optim),
        attributes=(Attribute("kind", 5),),
    )
    assert isinstance(mine.any_order_loop.optim.lr, float)


def test_what_follows_from_the_tokenizer_and_the_texts_is_filled_in(tmp_path: Path) -> None:
    text = 'base = "fashion"\ntext_vocab = 700\ntokenizer.image_size = [32, 32]\ntokenizer.vocab_size = 64'
    mine = load_recipe(write(tmp_path, text))
    assert (mine.backbone.grid, mine.backbone.vocab_size, mine.backbone.condition_vocab) == ((4, 4), 64, 700)
    assert mine.defaults.steps == 16, "no more than there are tokens"
    assert load_recipe(write(tmp_path, 'base = "fashion"\nbackbone.condition_vocab = 4096')).text_vocab == 2048


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_file_that_only_names_its_base_is_the_base(name: str, tmp_path: Path) -> None:
    assert load_recipe(write(tmp_path, f'base = "{name}"\nname = "{name}"')) == find_recipe(name) == load_recipe(name)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('base = "picture-64"', "unknown base 'picture-64'; did you mean 'pictures-64'?"),
        ('name = "x"', 'no base is named, as in base = "pictures-64"; there are avatars-128, '),
        ('base = "fashion"\nlicense = "MIT"', "there is no field 'license'; did you mean 'licence'?"),
        ('base = "fashion"\nbackbone.widht = 8', "there is no field 'backbone.widht'; did you mean 'width'?"),
        ('base = "fashion"\nany_order_loop.optim.rate = 1', "no field 'any_order_loop.optim.rate'; there are betas, "),
        ('base = "fashion"\nbackbone.width = "8"', "backbone.width is '8'; it has to be a whole number"),
        ('base = "fashion"\nbackbone.dropout = true', "backbone.dropout is True; it has to be a number"),
        ('base = "fashion"\nlicence = 3', "licence is 3; it has to be a text"),
        ('base = "fashion"\nbackbone = 3', "backbone has fields of its own, as backbone.grid"),
        ('base = "fashion"\ntokenizer.image_size = 64', "tokenizer.image_size is 64; it has to be a list of 2"),
        ('base = "fashion"\ntokenizer.image_size = [64]', "tokenizer.image_size is [64]; it has to be a list of 2"),
        ('base = "fashion"\ntokenizer.image_size = [64, 0.5]', "image_size[1] is 0.5; it has to be a whole number"),
        ('base = "fashion"\ntokenizer.image_size = [60, 64]', "(60, 64) is not a multiple of 8 pixels per token"),
        ('base = "fashion"\nbackbone.grid = [4, 4]', "tokenizer grid (10, 8) differs from the backbone's (4, 4)"),
        ('base = "fashion"\ndefaults.order = "zigzag"', "order 'zigzag' is not one of auto, raster, "),
        ('base = "fashion"\ndefaults.group_sizes = "x"', "group_sizes 'x' is not one of cosine, "),
        ('base = "fashion"\ndefaults.guidance_schedule = "x"', "guidance_schedule 'x' is not one of constant, "),
        ('base = "fashion"\ndefaults.guidance_interval = [0.5, 0.1]', "guidance_interval is 0.5 to 0.1; it has to end"),
        ('base = "fashion"\ndefaults.top_p = 0', "top_p is 0"),
        ('base = "fashion"\ndefaults.steps = 81', "defaults.steps is 81; the grid takes 1 to 80"),
        ('base = "fashion"\nfit = "stretch"', "unknown fit 'stretch'; there are pad, crop"),
        ('base = "fashion"\ncaption_source = "titel"', "unknown caption_source 'titel'; did you mean 'titles'?"),
        ('base = "fashion"\nany_order_loop.batch_size = 0', "batch_size, checkpoint_every and log_every are positive"),
        ('base = "fashion"\nname = "../x"', "the name '../x' is not made of letters"),
        ('base = "fashion"\n[[attributes]]\ncolum = "a"', "no field 'attributes[0].colum'; did you mean 'column'"),
        ('base = "fashion"\nattributes = [3]', "attributes[0] is 3; it has to be a table"),
        ('base = "fashion"\n[[attributes]]\nmax_classes = 3', "attributes[0] lacks a field; it has column, max_cl"),
        ("base = fashion", "is no TOML"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_the_file(text: str, sentence: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        load_recipe(path)
    assert sentence in str(error.value)
    assert str(error.value).startswith(path)


def test_names_and_files_that_are_not_there() -> None:
    with pytest.raises(ConfigError, match="unknown recipe 'sprite-64'; did you mean 'sprites-64'"):
        load_recipe("sprite-64")
    with pytest.raises(ConfigError, match=r"nowhere\.toml cannot be read: No such file"):
        load_recipe("nowhere.toml")


def test_the_option_takes_names_and_files_and_refuses_others(tmp_path: Path) -> None:
    @click.command()
    @recipe_option
    def show(recipe: Recipe) -> None:
        click.echo(recipe.name)

    assert CliRunner().invoke(show, []).output == "sprites-64\n"
    assert CliRunner().invoke(show, ["--recipe", "fashion"]).output == "fashion\n"
    assert CliRunner().invoke(show, ["--recipe", write(tmp_path, MINE)]).output == "mine\n"
    result = CliRunner().invoke(commands["train"], ["check", "--recipe", "fashions", "--data", str(tmp_path)])
    assert result.exit_code == 2
    assert "did you mean 'fashion'?" in result.output


def test_a_loop_runs_at_least_once() -> None:
    with pytest.raises(ConfigError, match="positive"):
        LoopConfig(num_images=0)


def test_a_mark_at_the_start_of_a_recipe_is_nothing(tmp_path: Path) -> None:
    """Editors on Windows write one."""
    path = tmp_path / "mine.toml"
    path.write_bytes('\ufeffbase = "fashion"\n'.encode())
    assert load_recipe(str(path)).name == "mine"
