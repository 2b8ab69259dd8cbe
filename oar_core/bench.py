"""Benchmarks of the engine in this process. Times depend on the machine; compare ratios of one run."""

import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from oar_core.engine.engine import Engine
from oar_core.engine.events import SequenceFinished
from oar_core.engine.sequence import SequenceRequest
from oar_core.models.backbone import Condition
from oar_core.models.oar import OarBackbone
from oar_core.order.plan import PlanSpec
from oar_core.sampling.pipeline import Pipeline
from oar_core.train.data import ImageSet
from oar_core.train.loop import Step
from oar_core.train.losses import token_cross_entropy
from oar_core.train.optim import ParamGroup, build_optimizer
from oar_core.train.recipes import Recipe
from oar_core.train.run import seeded_init
from oar_core.train.stages.tokenizer import TokenizerStage


@dataclass(frozen=True)
class BatchingReport:
    """Seconds for the same pictures, made one after another and all at once."""

    model: str
    num_images: int
    steps: int
    one_by_one_seconds: float
    at_once_seconds: float
    ratio: float  # at once / one by one
    images_per_second: float  # at once
    torch: str
    device: str
    dtype: str
    threads: int
    machine: str


def measure_batching(pipeline: Pipeline, *, num_images: int, steps: int | None, repeats: int) -> BatchingReport:
    """Medians of `repeats` runs after one warm-up. `steps` None is the model's default."""
    spec = replace(pipeline.default_plan, steps=steps or pipeline.default_plan.steps)
    requests = default_requests(pipeline, num_images, spec)
    engine = Engine(pipeline.backbone, pipeline.unconditional_ids, 2 * num_images)
    run_to_end(engine, pipeline, requests[:2])
    one_by_one = median_seconds(lambda: [run_to_end(engine, pipeline, [request]) for request in requests], repeats)
    at_once = median_seconds(lambda: run_to_end(engine, pipeline, requests), repeats)
    weight = next(pipeline.backbone.parameters())
    return BatchingReport(
        model=pipeline.name,
        num_images=num_images,
        steps=spec.steps or pipeline.backbone.config.num_tokens,
        one_by_one_seconds=one_by_one,
        at_once_seconds=at_once,
        ratio=at_once / one_by_one,
        images_per_second=num_images / at_once,
        torch=torch.__version__,
        device=str(weight.device),
        dtype=str(weight.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        machine=platform.processor() or platform.machine(),
    )


TOKENIZER, ANY_ORDER = "tokenizer", "any_order"
STAGES = (ANY_ORDER, TOKENIZER)
PROMPT_LENGTH = 25  # tokens of a caption


@dataclass(frozen=True)
class TrainingReport:
    """Speed of a stage on random pictures or tokens: forward, backward and optimiser step."""

    recipe: str
    stage: str
    num_tokens: int
    parameters: int
    images_per_cpu_second: float  # of this process, all threads
    peak_mib: int  # of this process, the interpreter and libraries included
    threads: int


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
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        // (1 << 10 if sys.platform == "linux" else 1 << 20),
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
        stage = TokenizerStage(images, recipe.tokenizer, recipe.tokenizer_stage)
    optimizer = build_optimizer(stage.param_groups(), recipe.tokenizer_loop.optim)
    half_way = Step(1, 2, torch.device("cpu"), generator)

    def step() -> None:
        indices = torch.randint(len(images), (batch_size,), generator=generator)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = stage.loss(indices, half_way)["total"]
        _descend(loss, optimizer)

    return stage.tokenizer, step


def _any_order_step(recipe: Recipe, batch_size: int) -> tuple[nn.Module, Callable[[], None]]:
    config = recipe.backbone
    with seeded_init(0):
        backbone = OarBackbone(config)
    optimizer = build_optimizer([ParamGroup(list(backbone.parameters()))], recipe.any_order_loop.optim)
    generator = torch.Generator().manual_seed(0)
    condition = Condition.stack([[0] * PROMPT_LENGTH] * batch_size, torch.device("cpu"))

    def step() -> None:
        token_ids = torch.randint(config.vocab_size, (batch_size, config.num_tokens), generator=generator)
        positions = torch.rand(token_ids.shape, generator=generator).argsort(-1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = token_cross_entropy(backbone(condition, token_ids, positions), token_ids)
        _descend(loss, optimizer)

    return backbone, step


def _descend(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def default_requests(pipeline: Pipeline, count: int, spec: PlanSpec) -> list[SequenceRequest]:
    """The model's example prompts in turn, each picture with a seed of its own and the default sampling."""
    prompts = [pipeline.encode_prompt(prompt) for prompt in pipeline.example_prompts]
    return [
        SequenceRequest(str(number), prompts[number % len(prompts)], number, 0, spec, pipeline.default_sampling)
        for number in range(count)
    ]


def run_to_end(engine: Engine, pipeline: Pipeline, requests: Sequence[SequenceRequest]) -> None:
    """From requests to pixels."""
    for request in requests:
        engine.add(request)
    finished: list[tuple[int, ...]] = []
    while engine.has_work:
        finished += [event.token_ids for event in engine.step() if isinstance(event, SequenceFinished)]
    pipeline.decode(torch.tensor(finished))


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    times: list[float] = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
