"""A model's group sizes, from pictures to its folder."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from oar_cli import group_sizes as sizes_cli
from oar_cli.lab import commands
from oar_core.config import BackboneConfig, TokenizerConfig
from oar_core.errors import DataError
from oar_core.models.load import load_model
from oar_core.models.model import CONFIG, GROUP_TABLES
from oar_core.train.recipe import Recipe
from oar_core.train.run import Run
from oar_core.weights import Manifest
from oar_lab.eval.group_tables import split_halves
from oar_lab.eval.reference import choose_pictures
from tests.server.tiny import GRID, NAME, NUM_TOKENS


@pytest.fixture
def weights(weights_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(weights_dir, tmp_path / "weights"))


@pytest.fixture
def find_sizes(base_recipe: Recipe, picture_folder: Path, weights: Path, tmp_path: Path, monkeypatch) -> Any:
    """Calls `oar study sizes` on the tiny model and pictures of its size."""
    tokenizer = TokenizerConfig(image_size=(16, 20), widths=(8, 8), head_width=8, vocab_size=16, code_width=4)
    backbone = BackboneConfig(**{**base_recipe.backbone.to_dict(), "grid": GRID})
    recipe = replace(base_recipe, tokenizer=tokenizer, backbone=backbone)
    run = Run(recipe, picture_folder, tmp_path / "run", torch.device("cpu"))
    monkeypatch.setattr(sizes_cli, "make_run", lambda *_arguments, **_options: run)

    def call(*options: str) -> dict[str, Any]:
        arguments = ["sizes", "--data", str(picture_folder), "--run", str(run.folder), "--weights", str(weights)]
        chosen = ["--images", "7", "--score-images", "5", "--batch", "3", *options]
        result = CliRunner().invoke(commands["study"], [*arguments, *chosen], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        assert "best sizes" in result.stdout
        return json.loads(result.stdout.splitlines()[-1])

    return call


def test_sizes_are_fitted_and_scored_on_other_pictures(find_sizes: Any, tmp_path: Path) -> None:
    told = find_sizes("--order", "halton", "--order", "random", "--steps", "4", "--steps", "9", "--out",
                      str(tmp_path / "sizes.json"))  # fmt: skip
    assert list(told["orders"]) == ["halton", "random"]
    assert (told["num_fit"], told["num_score"], told["num_clear"], told["is_exact"]) == (7, 5, 0, True)
    rows = told["orders"]["halton"]["steps"]
    assert [row["steps"] for row in rows] == [4, 9]
    for row in rows:
        assert sum(row["sizes"]) == NUM_TOKENS
        assert len(row["sizes"]) == row["steps"]
    stored = json.loads((tmp_path / "sizes.json").read_text())
    losses = torch.tensor(stored["losses"]["halton"]["score"], dtype=torch.float64)
    assert losses.diagonal().sum().item() == pytest.approx(told["orders"]["halton"]["nats"], abs=1e-3)


def test_stored_sizes_are_in_the_model_whose_manifest_still_holds(find_sizes: Any, weights: Path) -> None:
    before = Manifest.load(weights)
    find_sizes("--order", "halton", "--steps", "6", "--store")
    told = find_sizes("--order", "raster", "--steps", "3", "--store")
    manifest = Manifest.load(weights)
    config = json.loads((manifest.folder(NAME) / CONFIG).read_text())
    tables = config[GROUP_TABLES]
    assert set(tables) == {"halton", "raster"}, "a second order leaves the first"
    assert list(tables["halton"]) == [str(steps) for steps in range(1, 7)]
    assert tables["raster"]["3"] == told["orders"]["raster"]["steps"][0]["sizes"]
    assert (manifest.default, manifest.entries[NAME].licence) == (before.default, before.entries[NAME].licence)
    load_model(manifest.folder(NAME), "cpu", torch.float32)


def test_no_label_row_is_on_both_sides_nor_among_the_first_that_are_drawn() -> None:
    row_of = np.repeat(np.arange(50), 8)
    halves = split_halves(row_of, 30, 40)
    assert not set(row_of[halves.fit.numpy()]) & set(row_of[halves.score.numpy()])
    drawn = set(choose_pictures(400, halves.num_clear).tolist())
    assert 0 < halves.num_clear < 400 - 70
    assert not drawn & {*halves.fit.tolist(), *halves.score.tolist()}
    assert {*choose_pictures(400, halves.num_clear + 1).tolist()} & {*halves.fit.tolist(), *halves.score.tolist()}


def test_too_few_pictures_are_refused() -> None:
    with pytest.raises(DataError, match="too few held-out pictures"):
        split_halves(np.repeat(np.arange(2), 30), 30, 40)
