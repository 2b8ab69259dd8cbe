"""The subject of a benchmark: a shipped model, or a recipe with random weights, whose speed is that of trained ones."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import torch

from oar_core.engine.config import EngineConfig
from oar_core.engine.engine import Engine
from oar_core.models.base import Backbone, ImageTokenizer, Prefix
from oar_core.models.load import load_model
from oar_core.models.model import in_number_format
from oar_core.models.oar.backbone import OarBackbone
from oar_core.models.oar.vqgan import VQGAN
from oar_core.order.plan import PlanSpec
from oar_core.sampling.defaults import default_plan, default_sampling
from oar_core.sampling.draw import CompiledDraw, Draw, plain_draw
from oar_core.sampling.request import SequenceRequest
from oar_core.sampling.sampler import SamplingParams
from oar_core.train.recipe import Recipe
from oar_core.train.run import seeded_init
from oar_core.weights import Manifest

PROMPT_LENGTH = 25  # tokens, where the weights are random


@dataclass(frozen=True)
class Subject:
    name: str
    backbone: Backbone
    tokenizer: ImageTokenizer
    prompts: tuple[Prefix, ...]
    unconditional_ids: tuple[int, ...]
    plan: PlanSpec
    sampling: SamplingParams
    dtype: torch.dtype
    is_compiled: bool = False

    @classmethod
    def of_model(cls, weights: Path, name: str | None, device: str, dtype: torch.dtype) -> Self:
        """Raises WeightsError."""
        manifest = Manifest.load(weights)
        pipeline = load_model(manifest.folder(name or manifest.default), device, dtype)
        return cls(
            pipeline.name,
            pipeline.backbone,
            pipeline.tokenizer,
            tuple(pipeline.encode_prompt(prompt) for prompt in pipeline.example_prompts),
            pipeline.unconditional_ids,
            default_plan(pipeline),
            default_sampling(pipeline),
            dtype,
        )

    @classmethod
    def of_recipe(cls, recipe: Recipe, device: str, dtype: torch.dtype) -> Self:
        with seeded_init(0):
            backbone, tokenizer = OarBackbone(recipe.grid_backbone), VQGAN(recipe.grid_tokenizer)
        defaults = recipe.defaults.of_model("random")
        return cls(
            recipe.name,
            in_number_format(backbone.to(device=device), dtype).eval(),
            tokenizer.to(device=device, memory_format=torch.channels_last).eval(),  # pyright: ignore[reportCallIssue]
            tuple((1, *(token + 2 for token in range(length))) for length in range(PROMPT_LENGTH - 3, PROMPT_LENGTH)),
            (0,),
            PlanSpec(defaults.order, defaults.steps, defaults.group_sizes),
            SamplingParams(defaults.temperature, defaults.top_k, defaults.top_p, defaults.guidance),
            dtype,
        )

    @property
    def device(self) -> torch.device:
        return next(self.backbone.parameters()).device

    def engine(self, num_slots: int) -> Engine:
        config = EngineConfig(num_slots, is_compiled=self.is_compiled)
        return Engine(self.backbone, self.unconditional_ids, config)

    @cached_property
    def draw(self) -> Draw:
        """The draw of the engine's steps. Raises ConfigError where it cannot be compiled."""
        return CompiledDraw(self.backbone.spec.vocab_size, self.device) if self.is_compiled else plain_draw

    def requests(self, count: int, plan: PlanSpec | None = None, *, first: int = 0) -> list[SequenceRequest]:
        """The prompts in turn, each picture with a seed of its own; the model's plan and sampling unless given."""
        return [
            SequenceRequest(
                str(number), self.prompts[number % len(self.prompts)], number, 0, plan or self.plan, self.sampling
            )
            for number in range(first, first + count)
        ]

    def with_steps(self, steps: int | None) -> PlanSpec:
        return self.plan if steps is None else self.plan.with_steps(steps)
