"""AdamW with decay on matrices only, and a warm-up-then-cosine learning rate."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class OptimConfig:
    lr: float = 1e-3
    final_lr_share: float = 0.02  # of `lr`, reached at the last step
    warmup_share: float = 0.02  # of all steps
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05
    max_grad_norm: float = 1.0


@dataclass(frozen=True)
class ParamGroup:
    parameters: list[nn.Parameter]
    lr_scale: float = 1.0
    betas: tuple[float, float] | None = None  # the config's unless given


def build_optimizer(groups: Iterable[ParamGroup], config: OptimConfig) -> torch.optim.AdamW:
    """Biases, norms and embeddings of one row are not decayed (parameters of fewer than two dimensions)."""
    settings: list[dict[str, Any]] = []
    for group in groups:
        matrices = [p for p in group.parameters if p.ndim >= 2]
        vectors = [p for p in group.parameters if p.ndim < 2]
        usual = {"lr_scale": group.lr_scale, "betas": group.betas or config.betas}
        settings.append({"params": matrices, "weight_decay": config.weight_decay, **usual})
        settings.append({"params": vectors, "weight_decay": 0.0, **usual})
    return torch.optim.AdamW(settings, lr=config.lr, betas=config.betas, fused=True)


def learning_rate(config: OptimConfig, step: int, num_steps: int) -> float:
    """The rate of `step` (from 0): linear warm-up, then half a cosine down to `final_lr_share`."""
    warmup = max(1, round(config.warmup_share * num_steps))
    if step < warmup:
        return config.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, num_steps - warmup)
    share = config.final_lr_share + (1 - config.final_lr_share) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.lr * share


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]
