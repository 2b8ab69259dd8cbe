"""The pretrained perceptual distance, and the tokenizer's stage with it and without an adversary."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from oar_core.errors import ConfigError
from oar_core.train import perceptual
from oar_core.train.checkpoint import load_tensors
from oar_core.train.loop import LoopConfig, Step
from oar_core.train.optim import OptimConfig
from oar_core.train.perceptual import PACKAGE, PerceptualDistance
from oar_core.train.recipe import Recipe
from oar_core.train.run import Run
from oar_core.train.run_data import load_pictures
from oar_core.train.stage_trainer import StageTrainer
from oar_core.train.stages.tokenizer import TokenizerStage, TokenizerStageConfig

CPU = torch.device("cpu")
NO_ADVERSARY = TokenizerStageConfig(perceptual_weight=0.0, adversarial_weight=0.0)
needs_weights = pytest.mark.skipif(find_spec(PACKAGE) is None, reason=f"the package {PACKAGE} is not installed")


def some(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture
def distance() -> PerceptualDistance:
    """The network with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = PerceptualDistance()
    for weight in found.weights:
        weight.fill_(1.0)
    return found


def test_equal_pictures_are_no_distance_apart(distance: PerceptualDistance) -> None:
    pictures = some(2, 3, 16, 24)
    assert distance(pictures, pictures.clone()).item() == 0
    assert distance(pictures, some(2, 3, 16, 24, seed=1)).item() > 0


def test_the_gradient_goes_to_the_painted_picture_alone(distance: PerceptualDistance) -> None:
    real, painted = some(2, 3, 16, 16).requires_grad_(), some(2, 3, 16, 16, seed=1).requires_grad_()
    distance(real, painted).backward()
    assert real.grad is None
    assert painted.grad is not None
    assert float(painted.grad.abs().sum()) > 0
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in distance.parameters())


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perceptual, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="pip install --no-deps stlpips-pytorch"):
        PerceptualDistance.pretrained()


@needs_weights
def test_pretrained_features_mind_edges_more_than_brightness() -> None:
    distance = PerceptualDistance.pretrained()
    assert all(float(weight.abs().sum()) > 0 for weight in distance.weights)
    pictures = torch.full((1, 3, 32, 32), 0.5)
    pictures[..., 8:24, 8:24] = -0.5
    blurred = torch.nn.functional.avg_pool2d(pictures, 5, stride=1, padding=2, count_include_pad=False)
    error = (pictures - blurred).abs().mean()
    assert distance(pictures, pictures).item() == 0
    assert distance(pictures, blurred).item() > 2 * distance(pictures, pictures + error).item()


@needs_weights
def test_a_recipe_with_it_trains_on_a_crop(tiny_recipe: Recipe, picture_folder: Path, tmp_path: Path) -> None:
    config = replace(NO_ADVERSARY, vgg_weight=0.1, vgg_crop=8)
    stage = TokenizerStage(
        load_pictures(Run(tiny_recipe, picture_folder, tmp_path, CPU), "train"), tiny_recipe.tokenizer, config
    )
    stage.before_step(Step(0, 10, CPU, torch.Generator().manual_seed(0)))
    losses = stage.loss(torch.arange(8), Step(0, 10, CPU, torch.Generator().manual_seed(0)))
    assert losses["vgg"].item() > 0
    assert not any("perceptual" in name for name in stage.module.state_dict())


@pytest.mark.parametrize("crop", [0, 8, 64])
def test_the_distance_counts_on_whole_pictures_crops_and_crops_beyond_the_picture(
    crop: int, distance: PerceptualDistance, tiny_recipe: Recipe, picture_folder: Path, tmp_path: Path
) -> None:
    images = load_pictures(Run(tiny_recipe, picture_folder, tmp_path, CPU), "train")
    stage = TokenizerStage(images, tiny_recipe.tokenizer, replace(NO_ADVERSARY, vgg_crop=crop))
    stage.perceptual, stage.config = distance, replace(stage.config, vgg_weight=0.5)
    real, painted = some(2, 3, 16, 16), some(2, 3, 16, 16, seed=1)
    known = torch.ones(2, 16, dtype=torch.bool)
    losses = stage.picture_losses(real, painted, known, Step(0, 10, CPU, torch.Generator().manual_seed(0)))
    assert set(losses) == {"total", "pixel", "vgg"}
    torch.testing.assert_close(losses["total"], losses["pixel"] + 0.5 * losses["vgg"])


def test_without_an_adversary_the_loss_falls_and_no_discriminator_is_kept(
    tiny_recipe: Recipe, picture_folder: Path, tmp_path: Path
) -> None:
    loop = LoopConfig(num_images=480, batch_size=8, log_every=1, checkpoint_every=20, optim=OptimConfig(lr=3e-3))
    recipe = replace(tiny_recipe, tokenizer_loop=loop, tokenizer_stage=NO_ADVERSARY)
    path = StageTrainer(Run(recipe, picture_folder, tmp_path, CPU)).train_tokenizer()
    header, *lines = (path.parent / "curve.csv").read_text().splitlines()
    pixel = [float(line.split(",")[header.split(",").index("pixel")]) for line in lines]
    assert sum(pixel[-5:]) < 0.6 * sum(pixel[:5])
    assert not any("discriminator" in name for name in load_tensors(path)[0])
    assert not {"adversarial", "perceptual", "discriminator"} & set(header.split(","))


def test_a_training_without_an_adversary_goes_on_where_it_was_stopped(
    tiny_recipe: Recipe, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(tiny_recipe, tokenizer_stage=NO_ADVERSARY)
    whole = StageTrainer(Run(recipe, picture_folder, tmp_path / "whole", CPU)).train_tokenizer()
    before_step = TokenizerStage.before_step

    def stop(stage: TokenizerStage, step: Step) -> None:
        if step.number == 3:
            raise KeyboardInterrupt
        before_step(stage, step)

    with monkeypatch.context() as patch:
        patch.setattr(TokenizerStage, "before_step", stop)
        with pytest.raises(KeyboardInterrupt):
            StageTrainer(Run(recipe, picture_folder, tmp_path / "broken", CPU)).train_tokenizer()
    broken = StageTrainer(Run(recipe, picture_folder, tmp_path / "broken", CPU)).train_tokenizer()
    expected, found = load_tensors(whole)[0], load_tensors(broken)[0]
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
