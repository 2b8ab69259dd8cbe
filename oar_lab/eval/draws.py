"""Many pictures for one evaluation, drawn in chunks that are kept: an evaluation that was interrupted goes on."""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from oar_core.digests import module_digest
from oar_core.models.model import Model
from oar_core.order.plan import PlanSpec
from oar_core.sampling.generate import generate
from oar_core.sampling.progress import Patch
from oar_core.sampling.request import SequenceRequest
from oar_core.sampling.sampler import SamplingParams
from oar_core.stored import digest
from oar_core.tensor_file import load_tensors, save_tensors

PARTS = ".parts"  # the suffix of a folder of batches
ALWAYS_TOLD = {"order", "steps", "group_sizes", "entropy_bound", "guidance", "temperature", "top_k", "top_p"}


@dataclass(frozen=True)
class DrawSettings:
    """Picture i is image i of `seed`, so a larger draw begins with the smaller one."""

    plan: PlanSpec
    sampling: SamplingParams
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Converts to plain data. An option that is younger than the first evaluations is left out where it has its
        usual value: what was drawn before it could change keeps its name."""
        reported = asdict(self)
        for group, usual in (("plan", PlanSpec()), ("sampling", SamplingParams())):
            for name in reported[group].keys() - ALWAYS_TOLD:
                if reported[group][name] == getattr(usual, name):
                    del reported[group][name]
        return reported


@dataclass(frozen=True)
class Draws:
    """M pictures and what they cost. `token_ids` and `ranks` are in grid order."""

    token_ids: Int[Tensor, "M L"]
    ranks: Int[Tensor, "M L"]  # the rank at which each position was decoded, 0 first
    steps: Int[Tensor, "M"]
    query_evaluations: Float[Tensor, "M"]  # positions asked of the query stack, guidance's second row included
    policy_evaluations: Float[Tensor, "M"]  # positions asked of an order policy, which is far smaller
    seconds: Float[Tensor, "M"]  # of generation, without decoding to pixels; shared out evenly in a batch

    def __len__(self) -> int:
        return len(self.token_ids)

    def head(self, count: int) -> "Draws":
        return Draws(**{name: value[:count] for name, value in vars(self).items()})


def draws_path(folder: Path, pipeline: Model, settings: DrawSettings, prompt_source: str) -> Path:
    """One file per backbone, settings and source of prompts; how many pictures it holds is not part of its name, nor is
    the tokenizer, which has no part in drawing: a better decoder shows what was drawn before."""
    name = digest(module_digest(pipeline.backbone), str(pipeline.dtype), settings.to_dict(), prompt_source)
    return folder / f"{name}.safetensors"


def draw_pictures(
    pipeline: Model, prompts: Sequence[str], settings: DrawSettings, path: Path, *, batch_size: int = 64
) -> Draws:
    """One picture a prompt; those that `path` holds are not made again. A long prompt is cut, as in training.

    Raises a RequestError before any work where the plan does not fit the model.
    """
    stored, parts = _load(path), path.with_suffix(PARTS)
    conditions = pipeline.conditioner.encode_captions(list(prompts), max_length=pipeline.backbone.spec.max_condition)
    requests = [
        SequenceRequest(str(index), condition, settings.seed, index, settings.plan, settings.sampling)
        for index, condition in enumerate(conditions)
    ]
    bar = tqdm(total=len(requests), initial=min(len(stored), len(requests)), desc="drawing", unit="picture")
    while len(stored) < len(requests):
        chunk = _draw_chunk(pipeline, requests[len(stored) : len(stored) + batch_size])
        save_tensors(_part(parts, len(stored)), vars(chunk), settings.to_dict())
        stored = _joined(stored, chunk)
        bar.update(len(chunk))
    bar.close()
    if parts.exists():
        save_tensors(path, vars(stored), settings.to_dict())
        shutil.rmtree(parts, ignore_errors=True)  # what is left of them is older than the whole
    return stored.head(len(requests))


def _draw_chunk(pipeline: Model, requests: Sequence[SequenceRequest]) -> Draws:
    count, length = len(requests), pipeline.backbone.spec.num_tokens
    ranks = torch.zeros(count, length, dtype=torch.int16)
    steps = torch.zeros(count, dtype=torch.int16)

    def note(index: int, _step: int, _steps: int, patches: tuple[Patch, ...]) -> None:
        steps[index] += 1
        for patch in patches:
            ranks[index, patch.position] = patch.rank

    start = time.perf_counter()
    with counted_positions(pipeline.backbone, ("query", "policy")) as counts:
        token_ids = generate(pipeline.backbone, requests, pipeline.unconditional_ids, on_step=note)
    seconds = time.perf_counter() - start
    return Draws(
        token_ids=torch.tensor(token_ids, dtype=torch.int32),
        ranks=ranks,
        steps=steps,
        query_evaluations=torch.full((count,), counts["query"] / count),
        policy_evaluations=torch.full((count,), counts["policy"] / count),
        seconds=torch.full((count,), seconds / count),
    )


@contextmanager
def counted_positions(module: nn.Module, parts: Sequence[str]) -> Iterator[dict[str, int]]:
    """Counts every position that each part is asked for; 0 for a part that is not there.

    A part is a child module whose first argument is positions, or what stands for them in a last axis more.
    """
    counts = dict.fromkeys(parts, 0)

    def counter(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def count(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            asked = inputs[0]
            counts[name] += (asked.shape[:-1] if asked.is_floating_point() else asked.shape).numel()

        return count

    children = ((name, child) for name, child in module.named_children() if name in counts)
    handles = [child.register_forward_pre_hook(counter(name)) for name, child in children]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


def _part(folder: Path, start: int) -> Path:
    """One batch, until all are drawn, by the number of its first picture: what is drawn is written once."""
    return folder / f"{start}.safetensors"


def _load(path: Path) -> Draws:
    """The pictures of the file and of the batches that follow on it, which an interrupted draw has left."""
    stored = Draws(**load_tensors(path)[0]) if path.exists() else Draws(*(torch.empty(0) for _ in fields(Draws)))
    while (part := _part(path.with_suffix(PARTS), len(stored))).exists():
        stored = _joined(stored, Draws(**load_tensors(part)[0]))
    return stored


def _joined(first: Draws, second: Draws) -> Draws:
    if not len(first):
        return second
    return Draws(**{name: torch.cat([value, getattr(second, name)]) for name, value in vars(first).items()})
