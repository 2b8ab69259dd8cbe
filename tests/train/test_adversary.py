"""The adversary of the tokenizer: its losses, and what it can see."""

import math
from pathlib import Path

import torch

from oar_core.train.discriminator import Discriminator
from oar_core.train.loop import Step
from oar_core.train.losses import feature_distance, paired_logistic
from oar_core.train.recipe import Recipe
from oar_core.train.run import Run
from oar_core.train.run_data import load_pictures
from oar_core.train.stages.tokenizer import TokenizerStage

CPU = torch.device("cpu")


def some(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_two_players_want_the_opposite() -> None:
    """softplus(x) - softplus(-x) is x: what one gains in the mean difference, the other loses."""
    real, fake = some(4, 1, 5, 5), some(4, 1, 5, 5, seed=1)
    between = paired_logistic(real, fake) - paired_logistic(fake, real)
    torch.testing.assert_close(between, (fake - real).mean())
    assert math.isclose(float(paired_logistic(real, real)), math.log(2), rel_tol=1e-6)


def test_likeness_is_none_of_a_picture_to_itself_and_moves_the_painted_one_alone() -> None:
    discriminator = Discriminator()
    picture = some(2, 3, 16, 16)
    real, painted = picture.clone().requires_grad_(), (picture + 0.1).requires_grad_()
    _, features = discriminator(real)
    assert feature_distance(features, features) == 0
    feature_distance(features, discriminator(painted)[1]).backward()
    assert real.grad is None
    assert painted.grad is not None
    assert float(painted.grad.abs().sum()) > 0


def test_a_grid_of_pixels_differs_from_plain_ground_in_the_finest_features() -> None:
    rows, columns = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    grid = torch.where((rows + columns) % 2 == 0, 0.1, -0.1).expand(1, 3, 16, 16)
    discriminator = Discriminator()
    with torch.no_grad():
        fine, plain = (discriminator(picture)[1][0] for picture in (grid, torch.zeros_like(grid)))
    assert float((fine - plain).abs().mean()) > 1e-3


def test_a_discriminator_that_says_nothing_is_smooth_and_stays_at_chance(
    tiny_recipe: Recipe, picture_folder: Path, tmp_path: Path
) -> None:
    images = load_pictures(Run(tiny_recipe, picture_folder, tmp_path, CPU), "train")
    stage = TokenizerStage(images, tiny_recipe.tokenizer, tiny_recipe.tokenizer_stage)
    for parameter in stage.adversary.network.to_logit.parameters():
        parameter.data.zero_()
    step = Step(5, 10, CPU, torch.Generator().manual_seed(0))
    losses = stage.loss(torch.arange(8), step)
    for name in ("discriminator", "adversarial"):
        assert math.isclose(losses[name].item(), math.log(2), rel_tol=1e-6)
