"""Stage 3: the backbone is specialised on chosen orders, and beside it the order policy learns to choose them."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor, nn

from oar_core.errors import ConfigError
from oar_core.models.base import Condition
from oar_core.models.ordered import POLICY_PREFIX, OrderedBackbone
from oar_core.order.paths import PATHS, Grid, locality
from oar_core.order.plan import PROMPTED
from oar_core.train.context_noise import corrupt_context
from oar_core.train.loop import Stage, Step
from oar_core.train.losses import token_cross_entropy
from oar_core.train.optim import ParamGroup
from oar_core.train.stages.order_distill import SCORES, OrderSet
from oar_core.train.stages.order_policy import BY_SCORES, TEACHERS, policy_nats
from oar_core.train.stages.order_tree import token_ids_of
from oar_core.train.tokens import Captioner

DISTILLED, LOCALITY, RANDOM = "distilled", "locality", "random"
ARMS = (DISTILLED, PROMPTED, "raster", "halton", LOCALITY, RANDOM)
ANNEAL_UNTIL = 0.5  # of the run


@dataclass(frozen=True)
class OrderFinetuneStageConfig:
    orders: str = DISTILLED  # one of ARMS
    random_share: float = 0.1  # of pictures in random order, of the whole training set, so that edits still work
    is_annealed: bool = True  # the random share falls from 1 over the first half of the run (RAR, arXiv 2411.00776)
    unconditional_share: float = 0.1
    score: str | None = None  # that distilled orders go by, where it is not the recipe's; one of SCORES
    consensus: float = 0.0  # how far distilled orders are drawn together, see `OrderSet.drawn_together`
    context_noise: float = 0.0  # see `corrupt_context`
    policy_weight: float = 1.0  # of the order policy's loss; 0 trains none beside the backbone
    policy_ranks: int = 4  # of each picture, drawn anew at each step, at which the policy is trained
    policy_teacher: str = BY_SCORES  # one of TEACHERS, of a policy that is trained alone

    def __post_init__(self) -> None:
        if self.orders not in ARMS:
            raise ConfigError(f"unknown orders {self.orders!r}; there are {', '.join(ARMS)}")
        if self.policy_teacher not in TEACHERS:
            raise ConfigError(f"unknown policy_teacher {self.policy_teacher!r}; there are {', '.join(TEACHERS)}")
        if not 0 <= self.random_share <= 1:
            raise ConfigError(f"random_share {self.random_share} is outside [0, 1]")
        if self.score is not None and self.score not in SCORES:
            raise ConfigError(f"unknown score {self.score!r}; there are {', '.join(SCORES)}")
        if not 0 <= self.consensus <= 1:
            raise ConfigError(f"consensus {self.consensus} is outside [0, 1]")
        if self.consensus and self.orders != DISTILLED:
            raise ConfigError(f"consensus is of distilled orders; orders {self.orders!r} cannot be drawn together")
        if self.score and self.orders != DISTILLED:
            raise ConfigError(f"a score is of distilled orders; orders {self.orders!r} go by none")

    def random_share_at(self, progress: float) -> float:
        annealed = 1 - progress / ANNEAL_UNTIL if self.is_annealed else 0.0
        return max(self.random_share, annealed)


def arm(orders: str, config: OrderFinetuneStageConfig) -> OrderFinetuneStageConfig:
    """The stage's config for one of ARMS: random is more of the any-order stage; raster ends without any random order,
    as in RAR; only distilled orders teach a policy."""
    if orders == DISTILLED:
        return replace(config, orders=orders)
    config = replace(config, orders=orders, policy_weight=0.0, score=None, consensus=0.0)
    return replace(config, random_share=0.0) if orders == "raster" else config


class OrderFinetuneStage(Stage):
    """Trains a backbone that has its any-order weights, and the policy that is attached to it, if any.

    The policy takes no part in the backbone's gradient: it reads the memory as it is. `loss` is the cross-entropy in
    nats per token, plus `policy_weight` times the policy's Plackett-Luce loss in nats per rank.
    """

    can_shard: ClassVar[bool] = True

    def __init__(
        self,
        captioner: Captioner,
        backbone: OrderedBackbone,
        config: OrderFinetuneStageConfig,
        distilled: OrderSet | None = None,
    ) -> None:
        """`distilled` are the orders, and their pictures the training set, where the config asks for them. The orders
        that prompts decide are those of the backbone's order tree."""
        if (distilled is None) == (config.orders == DISTILLED):
            raise ConfigError("distilled orders are given exactly where the stage trains on them")
        if config.orders == PROMPTED and backbone.order_tree is None:
            raise ConfigError("orders 'prompted' are those of an order tree, and the backbone has none")
        self.captioner = captioner
        self.backbone = backbone
        self.config = config
        self.distilled = distilled
        self.module: nn.Module = backbone

    def __len__(self) -> int:
        return len(self.captioner.tokens if self.distilled is None else self.distilled)

    def param_groups(self) -> list[ParamGroup]:
        named = dict(self.backbone.named_parameters())
        policy = [parameter for name, parameter in named.items() if name.startswith(POLICY_PREFIX)]
        rest = [parameter for name, parameter in named.items() if not name.startswith(POLICY_PREFIX)]
        return [ParamGroup(group) for group in (rest, policy) if group]

    def loss(self, indices: Int[Tensor, "B"], step: Step) -> dict[str, Tensor]:
        pictures, orders = self._orders(indices, step)
        is_random = torch.rand(len(pictures), generator=step.generator) < self.config.random_share_at(step.progress)
        if self.distilled is not None:
            # They need no distilled order, so they come from the whole training set: few pictures are soon memorised.
            others = torch.randint(len(self.captioner.tokens), pictures.shape, generator=step.generator)
            pictures = torch.where(is_random, others, pictures)
        shape = len(pictures), self.backbone.spec.num_tokens
        shuffled = torch.rand(shape, generator=step.generator).argsort(dim=-1)
        if orders is None:
            condition, orders = self._prompted(pictures, step)
        else:
            condition = self.captioner.for_training(pictures, step)
        positions = torch.where(is_random[:, None], shuffled, orders)
        ordered = self.captioner.tokens.token_ids[pictures].long().gather(1, positions)
        context = corrupt_context(ordered, self.config.context_noise, self.backbone.spec.vocab_size, step)
        positions = positions.to(step.device)
        if self.backbone.policy is None:
            logits = self.backbone(condition, context.to(step.device), positions)
            return {"total": token_cross_entropy(logits, ordered.to(step.device))}
        found = self.backbone.read(condition, context.to(step.device), positions)
        tokens = token_cross_entropy(found.logits, ordered.to(step.device))
        policy, ranks = self.backbone.policy, self.config.policy_ranks
        nats = policy_nats(self.backbone, policy, found.memory, positions, ranks, step)
        counts = ~is_random.to(step.device)
        loss = (nats.mean(dim=1) * counts).sum() / counts.sum().clamp_min(1)
        return {"total": tokens + self.config.policy_weight * loss, "tokens": tokens, "policy": loss}

    def _orders(self, indices: Int[Tensor, "B"], step: Step) -> tuple[Int[Tensor, "B"], Int[Tensor, "B L"] | None]:
        """The pictures of a batch, and the arm's order of each; None where their captions decide."""
        if self.distilled is not None:
            return self.distilled.indices[indices], self.distilled.orders[indices]
        if self.config.orders == PROMPTED:
            return indices, None
        return indices, _arm_orders(self.config.orders, self.backbone.spec.grid, len(indices), step)

    def _prompted(self, pictures: Int[Tensor, "B"], step: Step) -> tuple[Condition, Int[Tensor, "B L"]]:
        """Conditions of captions drawn anew, and the orders that these captions decide."""
        tree = self.backbone.order_tree
        assert tree is not None, "checked when the stage was made"
        condition, prompts = self.captioner.with_prompts(pictures, step)
        return condition, torch.tensor([tree.order(token_ids_of(prompt)) for prompt in prompts])


def _arm_orders(name: str, grid: Grid, count: int, step: Step) -> Int[Tensor, "B L"]:
    if name == RANDOM:
        return torch.rand(count, grid[0] * grid[1], generator=step.generator).argsort(dim=-1)
    if name != LOCALITY:
        return torch.tensor(PATHS[name](grid)).expand(count, -1)
    seeds = torch.randint(2**62, (count,), generator=step.generator).tolist()
    return torch.tensor([locality(grid, seed) for seed in seeds])
