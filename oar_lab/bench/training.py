"""Speed of the two long stages on random pictures and tokens."""

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from oar_core.models.base import Condition
from oar_core.models.oar.backbone import OarBackbone
from oar_core.train.data import ImageSet
from oar_core.train.loop import Step
from oar_core.train.losses import token_cross_entropy
from oar_core.train.optim import ParamGroup, build_optimizer
from oar_core.train.precision import autocast
from oar_core.train.recipe import Recipe
from oar_core.train.run import seeded_init
from oar_core.train.stages.tokenizer import TokenizerStage
from oar_lab.bench.subject import PROMPT_LENGTH
from oar_lab.bench.table import BenchReport, table

TOKENIZER, ANY_ORDER = "tokenizer", "any_order"
STAGES = (ANY_ORDER, TOKENIZER)


@dataclass(frozen=True)
class TrainingReport(BenchReport):
    """Forward, backward and optimiser step."""

    recipe: str
    stage: str
    num_tokens: int
    parameters: int
    images_per_cpu_second: float  # of this process, all threads
    peak_mib: int  # of this process, the interpreter and libraries included
    threads: int

    def table(self) -> str:
        row = (self.recipe, self.stage, self.num_tokens, self.parameters, self.images_per_cpu_second, self.peak_mib)
        return table(("recipe", "stage", "tokens", "parameters", "pictures per CPU second", "peak MiB"), [row])


def measure_training(recipe: Recipe, *, stage: str = ANY_ORDER, batch_size: int, steps: int) -> TrainingReport:
    """CPU seconds of `steps` steps after one warm-up."""
    module, step = (_tokenizer_step if stage == TOKENIZER else _any_order_step)(recipe, batch_size)
    step()
    start = time.process_time()
    for _ in range(steps):
        step()
    seconds = time.process_time() - start
    return TrainingReport(
        recipe=recipe.name,
        stage=stage,
        num_tokens=recipe.backbone.num_tokens,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        images_per_cpu_second=steps * batch_size / seconds,
        peak_mib=_peak_bytes() >> 20,
        threads=torch.get_num_threads(),
    )


def _peak_bytes() -> int:
    """Most memory that this process had; Linux counts in kilobytes, others in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1024 if sys.platform == "linux" else 1)


def _tokenizer_step(recipe: Recipe, batch_size: int) -> tuple[nn.Module, Callable[[], None]]:
    """All losses, the adversary's too."""
    generator = torch.Generator().manual_seed(0)
    shape = (4 * batch_size, *recipe.tokenizer.image_size, 3)
    pixels = torch.randint(256, shape, generator=generator, dtype=torch.uint8).numpy()
    images = ImageSet(pixels, [{"caption": ""}], np.zeros(len(pixels), dtype=np.int32))
    with seeded_init(0):
        stage = TokenizerStage(images, recipe.grid_tokenizer, recipe.tokenizer_stage)
    optimizer = build_optimizer(stage.param_groups(), recipe.tokenizer_loop.optim)
    half_way = Step(1, 2, torch.device("cpu"), generator)

    def step() -> None:
        indices = torch.randint(len(images), (batch_size,), generator=generator)
        with autocast(torch.device("cpu")):
            loss = stage.loss(indices, half_way)["total"]
        _descend(loss, optimizer)

    return stage.tokenizer, step


def _any_order_step(recipe: Recipe, batch_size: int) -> tuple[nn.Module, Callable[[], None]]:
    config = recipe.grid_backbone
    with seeded_init(0):
        backbone = OarBackbone(config)
    optimizer = build_optimizer([ParamGroup(list(backbone.parameters()))], recipe.any_order_loop.optim)
    generator = torch.Generator().manual_seed(0)
    condition = Condition.stack([[0] * PROMPT_LENGTH] * batch_size, torch.device("cpu"))

    def step() -> None:
        token_ids = torch.randint(config.vocab_size, (batch_size, config.num_tokens), generator=generator)
        positions = torch.rand(token_ids.shape, generator=generator).argsort(-1)
        with autocast(torch.device("cpu")):
            loss = token_cross_entropy(backbone(condition, token_ids, positions), token_ids)
        _descend(loss, optimizer)

    return backbone, step


def _descend(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
