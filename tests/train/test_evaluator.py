"""The evaluation network's stage: what it learns, and that it goes its own way."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from oar_core.errors import ConfigError
from oar_core.train.attributes import UNKNOWN, Attribute, AttributeVocabulary
from oar_core.train.evaluator import Evaluator, EvaluatorConfig
from oar_core.train.loop import LoopConfig, Step
from oar_core.train.optim import OptimConfig
from oar_core.train.recipe import Recipe
from oar_core.train.recipes import RECIPES, find_recipe
from oar_core.train.run import Run
from oar_core.train.run_data import load_pictures
from oar_core.train.stage_trainer import StageTrainer
from oar_core.train.stages.evaluator import EvaluatorStage, EvaluatorStageConfig, augment
from oar_lab.eval.agreement import agreement

CPU = torch.device("cpu")


@pytest.fixture
def evaluator_recipe(tiny_recipe: Recipe) -> Recipe:
    loop = LoopConfig(num_images=1200, batch_size=24, optim=OptimConfig(lr=1e-2), ema_decay=0.9, seed=1)
    return replace(
        tiny_recipe,
        attributes=(Attribute("text"),),
        evaluator=EvaluatorConfig(widths=(8, 16)),
        evaluator_loop=loop,
        evaluator_stage=EvaluatorStageConfig(max_shift=1),
    )


def test_a_trained_evaluator_reads_held_out_pictures(
    tmp_path: Path, picture_folder: Path, evaluator_recipe: Recipe
) -> None:
    run = Run(evaluator_recipe, picture_folder, tmp_path / "run", CPU)
    evaluator = Evaluator.load(StageTrainer(run).train_evaluator(), CPU)
    images = load_pictures(run, "test")
    read = evaluator.read(images.pixels).classes
    labels = evaluator.vocabulary.encode(images.rows)[torch.from_numpy(images.row_of).long()]
    assert agreement(read, labels, evaluator.vocabulary.names)["text"] == 1.0
    assert evaluator.vocabulary.classes["text"] == ("a blue square", "a green square", "a red square")
    assert evaluator.name == evaluator_recipe.name


def test_a_recipe_without_attributes_is_refused(tmp_path: Path, picture_folder: Path, tiny_recipe: Recipe) -> None:
    with pytest.raises(ConfigError, match="names no attributes"):
        StageTrainer(Run(tiny_recipe, picture_folder, tmp_path / "run", CPU)).train_evaluator()


def test_shifts_bring_in_white_and_leave_the_rest() -> None:
    config = EvaluatorStageConfig(max_shift=1, max_noise=0.0)
    pictures = torch.rand(32, 3, 6, 5, generator=torch.Generator().manual_seed(0)) - 1
    shifted = augment(pictures, config, torch.Generator().manual_seed(1))
    moves = {
        (top, left)
        for before, after in zip(pictures, shifted)
        for top in (-1, 0, 1)
        for left in (-1, 0, 1)
        if torch.equal(torch.nn.functional.pad(before, (left, -left, top, -top), value=1.0), after)
    }
    assert len(moves) > 5
    still = EvaluatorStageConfig(max_shift=0, max_noise=0.0)
    assert torch.equal(augment(pictures, still, torch.Generator().manual_seed(1)), pictures)


def test_noise_differs_in_strength_from_picture_to_picture() -> None:
    config = EvaluatorStageConfig(max_shift=0, max_noise=0.5)
    noise = augment(torch.zeros(64, 3, 16, 16), config, torch.Generator().manual_seed(0)).std((1, 2, 3))
    assert noise.max() < 0.55
    assert noise.min() < 0.1 < 0.4 < noise.max()


def test_unknown_labels_teach_nothing(tmp_path: Path, picture_folder: Path, evaluator_recipe: Recipe) -> None:
    images = load_pictures(Run(evaluator_recipe, picture_folder, tmp_path / "run", CPU), "train")
    vocabulary = AttributeVocabulary.build(evaluator_recipe.attributes, images.rows)
    stage = EvaluatorStage(images, vocabulary, evaluator_recipe.evaluator, evaluator_recipe.evaluator_stage)
    stage.labels = torch.full_like(stage.labels, UNKNOWN)
    loss = stage.loss(torch.arange(8), Step(0, 1, CPU, torch.Generator().manual_seed(0)))["total"]
    assert loss.item() == 0.0
    loss.backward()
    assert all(not parameter.grad.any() for parameter in stage.net.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("name", sorted(name for name in RECIPES if find_recipe(name).attributes))
def test_no_evaluator_shares_its_seed_with_what_it_measures(name: str) -> None:
    chosen = find_recipe(name)
    assert chosen.evaluator_loop.seed not in {chosen.tokenizer_loop.seed, chosen.any_order_loop.seed}
