"""A tiny picture folder and a tiny recipe, so that whole trainings run in seconds."""

import csv
import random
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from oar_core.config import BackboneConfig, OrderPolicyConfig, TokenizerConfig
from oar_core.train.loop import LoopConfig
from oar_core.train.recipe import Recipe, SamplingDefaults
from oar_core.train.stages.order_distill import DistillConfig

COLOURS = ("red", "green", "blue")


def draw_square(colour: str, rng: random.Random) -> Image.Image:
    image = Image.new("RGB", (16, 16), "white")
    left, top = rng.randrange(8), rng.randrange(8)
    ImageDraw.Draw(image).rectangle((left, top, left + 7, top + 7), fill=colour)
    return image


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 training and 12 test pictures of coloured squares, with captions, in the plain-folder layout."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = random.Random(0)
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "text", "split"])
        for number in range(60):
            colour = COLOURS[number % 3]
            draw_square(colour, rng).save(folder / f"{number}.png")
            writer.writerow([f"{number}.png", f"a {colour} square", "train" if number < 48 else "test"])
    return folder


@pytest.fixture
def tiny_recipe(base_recipe: Recipe) -> Recipe:
    return base_recipe


@pytest.fixture(scope="session")
def base_recipe() -> Recipe:
    return Recipe(
        name="tiny",
        licence="CC0-1.0",
        caption_source="plain",
        text_vocab=280,
        tokenizer=TokenizerConfig(image_size=(16, 16), widths=(8, 8), head_width=8, vocab_size=16, code_width=4),
        tokenizer_loop=LoopConfig(num_images=48, batch_size=8, log_every=1, checkpoint_every=2),
        backbone=BackboneConfig(
            grid=(4, 4),
            vocab_size=16,
            condition_vocab=280,
            max_condition=8,
            width=16,
            num_heads=2,
            num_context_layers=1,
            num_query_layers=1,
        ),
        any_order_loop=LoopConfig(num_images=48, batch_size=8, log_every=1, checkpoint_every=2),
        decoder_loop=LoopConfig(num_images=32, batch_size=8, log_every=1, checkpoint_every=2),
        distill=DistillConfig(num_images=20, batch_size=6, block_size=8),
        order_finetune_loop=LoopConfig(num_images=48, batch_size=8, log_every=1, checkpoint_every=2),
        order_policy=OrderPolicyConfig(width=8, num_layers=1),
        order_policy_loop=LoopConfig(num_images=48, batch_size=8, log_every=1, checkpoint_every=2),
        defaults=SamplingDefaults(steps=4),
        example_prompts=("a red square",),
    )
