"""Speed of the any-order stage on random tokens."""

import time
from dataclasses import asdict, dataclass
from typing import Any

import torch

from oar_core.bench.table import table
from oar_core.models.backbone import Condition
from oar_core.models.oar import OarBackbone
from oar_core.train.losses import token_cross_entropy
from oar_core.train.optim import ParamGroup, build_optimizer
from oar_core.train.recipes import Recipe
from oar_core.train.run import seeded_init


@dataclass(frozen=True)
class TrainingReport:
    """Forward, backward and optimiser step."""

    recipe: str
    num_tokens: int
    parameters: int
    images_per_cpu_second: float  # of this process, all threads
    threads: int

    def table(self) -> str:
        row = (self.recipe, self.num_tokens, self.parameters, self.images_per_cpu_second)
        return table(("recipe", "tokens", "parameters", "pictures per CPU second"), [row])

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure_training(recipe: Recipe, *, batch_size: int, steps: int, prompt_length: int = 25) -> TrainingReport:
    config = recipe.backbone
    with seeded_init(0):
        backbone = OarBackbone(config)
    optimizer = build_optimizer([ParamGroup(list(backbone.parameters()))], recipe.any_order_loop.optim)
    generator = torch.Generator().manual_seed(0)
    condition = Condition.stack([[0] * prompt_length] * batch_size, torch.device("cpu"))

    def step() -> None:
        token_ids = torch.randint(config.vocab_size, (batch_size, config.num_tokens), generator=generator)
        positions = torch.rand(token_ids.shape, generator=generator).argsort(-1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = token_cross_entropy(backbone(condition, token_ids, positions), token_ids)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()
    start = time.process_time()
    for _ in range(steps):
        step()
    seconds = time.process_time() - start
    return TrainingReport(
        recipe.name, config.num_tokens, backbone.num_parameters, steps * batch_size / seconds, torch.get_num_threads()
    )
