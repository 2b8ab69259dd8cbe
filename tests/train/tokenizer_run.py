"""A short tokenizer training as a process of its own, for the test that kills it: PICTURES RUN."""

import sys
from pathlib import Path

import torch

from oar_core.config import BackboneConfig, TokenizerConfig
from oar_core.train.loop import LoopConfig
from oar_core.train.recipe import Recipe
from oar_core.train.run import Run
from oar_core.train.stage_trainer import StageTrainer

loop = LoopConfig(num_images=96, batch_size=8, log_every=1, checkpoint_every=2)
recipe = Recipe(
    name="tiny",
    licence="CC0-1.0",
    caption_source="plain",
    text_vocab=280,
    tokenizer=TokenizerConfig(image_size=(16, 16), widths=(8, 8), head_width=8, vocab_size=16, code_width=4),
    tokenizer_loop=loop,
    backbone=BackboneConfig(grid=(4, 4), vocab_size=16, condition_vocab=280, width=16, num_heads=2),
    any_order_loop=loop,
)
torch.set_num_threads(1)
StageTrainer(Run(recipe, Path(sys.argv[1]), Path(sys.argv[2]), torch.device("cpu"))).train_tokenizer()
