"""A training that `torchrun` starts as several processes: `python -m tests.train.processes RUN DATA`."""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from oar_core.train.recipe import Recipe
from oar_core.train.run import Run, together
from oar_core.train.stage_trainer import StageTrainer
from tests.train.test_families import settings

NUM_IMAGES = 48


def sharded(num_shards: int) -> Recipe:
    """A few steps, whose batches are divided."""
    recipe = settings()
    loop = replace(recipe.order_finetune_loop, num_images=NUM_IMAGES, num_shards=num_shards, checkpoint_every=2)
    return replace(recipe, order_finetune_loop=loop, order_policy_loop=loop)


def train_all(run: Run) -> None:
    StageTrainer(run).distill()
    StageTrainer(run).train_order_finetune()
    StageTrainer(run).train_order_policy()


if __name__ == "__main__":
    with together(Run(sharded(1), Path(sys.argv[2]), Path(sys.argv[1]), torch.device("cpu"))) as own:
        train_all(own)
