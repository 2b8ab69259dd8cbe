"""The golden files: tiny models with random weights in other projects' formats, and the numbers of their own code."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from oar_core.models.base import Backbone, Commit, Condition, Query
from oar_core.sampling.sampler import SamplingParams

FOLDER = Path(__file__).parents[1] / "golden"


@dataclass(frozen=True)
class Golden:
    state: Mapping[str, Tensor]
    vectors: Mapping[str, np.ndarray]

    @classmethod
    def load(cls, name: str) -> "Golden":
        weights = load_file(FOLDER / name / "weights.safetensors")
        return cls({key: value.float() for key, value in weights.items()}, dict(np.load(FOLDER / name / "vectors.npz")))

    def tensor(self, name: str) -> Tensor:
        return torch.from_numpy(self.vectors[name])


def stage_outputs(network: nn.Module, golden: Golden, run: Callable[[], object]) -> dict[str, Tensor]:
    """Outputs of modules that have a vector, as `run` makes them. It is called `stage_` and the name, `_` for dots."""
    found: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda *arguments, key=key: found.__setitem__(key, arguments[-1]))
        for key, module in ((f"stage_{name.replace('.', '_')}", module) for name, module in network.named_modules())
        if key in golden.vectors
    ]
    run()
    for hook in hooks:
        hook.remove()
    return found


def logits_by_steps(
    backbone: Backbone, conditions: list[int], order: Tensor, tokens: Tensor, sizes: list[int]
) -> Tensor:
    """Cached decode, group by group, feeding these tokens. `order` and `tokens` are by rank, one row a picture."""
    count = len(conditions)
    slots = torch.arange(count)
    cache = backbone.new_cache(count)
    nothing = torch.zeros(count, 0, dtype=torch.long)
    zero = torch.zeros(count, dtype=torch.long)
    condition = Condition.stack([[number] for number in conditions], torch.device("cpu"))
    backbone.prefill(cache, slots, condition, Commit(nothing, nothing, zero))
    commit, start, parts = Commit(nothing, nothing, zero), 0, []
    for size in sizes:
        asked = order[:, start : start + size]
        parts.append(backbone.step(cache, slots, commit, Query.grid(asked)).unflatten(0, (count, size)))
        group = tokens[:, start : start + size]
        seen = torch.full_like(group, size)
        commit = Commit(group, asked, torch.full((count,), size), seen)
        start += size
    return torch.cat(parts, dim=1)


def assert_scales(sampling: SamplingParams, sizes: np.ndarray, scales: np.ndarray) -> None:
    """The guidance of each rank; `scales` has one entry for each group, or for each rank."""
    ends = np.cumsum(sizes)
    found = [sampling.scales_of((int(end - size), int(end)), int(ends[-1])) for size, end in zip(sizes, ends)]
    wanted = scales if len(scales) == ends[-1] else np.repeat(scales, sizes)
    np.testing.assert_allclose(np.concatenate(found), wanted)


def logits_after_resuming(
    backbone: Backbone, conditions: list[int], order: Tensor, tokens: Tensor, sizes: list[int], num_groups: int
) -> Tensor:
    """The logits of the group behind `num_groups` groups that enter the cache in one prefill."""
    ends = np.cumsum(sizes)
    known = int(ends[num_groups - 1])
    seen = np.repeat(ends[:num_groups], sizes[:num_groups])
    count = len(conditions)
    cache = backbone.new_cache(count)
    condition = Condition.stack([[number] for number in conditions], torch.device("cpu"))
    table = torch.from_numpy(seen).expand(count, -1).contiguous()
    commit = Commit(tokens[:, :known], order[:, :known], torch.full((count,), known), table)
    backbone.prefill(cache, torch.arange(count), condition, commit)
    asked = order[:, known : known + sizes[num_groups]]
    answer = backbone.step(cache, torch.arange(count), commit.emptied, Query.grid(asked))
    return answer.unflatten(0, asked.shape)
