"""Stage 3: the backbone is specialised on chosen orders, and the order policy learns to choose them."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from oar_core.errors import ConfigError
from oar_core.models.oar import POLICY_PREFIX, Memory, OarBackbone
from oar_core.models.order_policy import OrderPolicy
from oar_core.nn.attention import DenseMemory
from oar_core.nn.rope import Rotation
from oar_core.order.paths import PATHS, Grid, locality
from oar_core.train.context_noise import corrupt_context
from oar_core.train.loop import Step
from oar_core.train.losses import plackett_luce, token_cross_entropy
from oar_core.train.optim import ParamGroup
from oar_core.train.stages.order_distill import OrderSet
from oar_core.train.tokens import Captioner

DISTILLED, LOCALITY, RANDOM = "distilled", "locality", "random"
ARMS = (DISTILLED, "raster", "halton", LOCALITY, RANDOM)
ANNEAL_UNTIL = 0.5  # of the run


@dataclass(frozen=True)
class OrderFinetuneStageConfig:
    orders: str = DISTILLED  # one of ARMS
    random_share: float = 0.1  # of pictures in random order, of the whole training set, so that edits still work
    is_annealed: bool = True  # the random share falls from 1 over the first half of the run (RAR, arXiv 2411.00776)
    unconditional_share: float = 0.1
    consensus: float = 0.0  # how far distilled orders are drawn together, see `OrderSet.drawn_together`
    context_noise: float = 0.0  # see `corrupt_context`
    policy_weight: float = 1.0  # of the order policy's loss; 0 trains none beside the backbone
    policy_ranks: int = 4  # of each picture, drawn anew at each step, at which the policy is trained

    def __post_init__(self) -> None:
        if self.orders not in ARMS:
            raise ConfigError(f"unknown orders {self.orders!r}; there are {', '.join(ARMS)}")
        if not 0 <= self.random_share <= 1:
            raise ConfigError(f"random_share {self.random_share} is outside [0, 1]")
        if not 0 <= self.consensus <= 1:
            raise ConfigError(f"consensus {self.consensus} is outside [0, 1]")
        if self.consensus and self.orders != DISTILLED:
            raise ConfigError(f"consensus is of distilled orders; orders {self.orders!r} cannot be drawn together")

    def random_share_at(self, progress: float) -> float:
        annealed = 1 - progress / ANNEAL_UNTIL if self.is_annealed else 0.0
        return max(self.random_share, annealed)


def arm(orders: str, config: OrderFinetuneStageConfig) -> OrderFinetuneStageConfig:
    """The stage's config for one of ARMS: random is more of the any-order stage; raster ends without any random order,
    as in RAR; only distilled orders teach a policy."""
    if orders == DISTILLED:
        return replace(config, orders=orders)
    config = replace(config, orders=orders, policy_weight=0.0, consensus=0.0)
    return replace(config, random_share=0.0) if orders == "raster" else config


class OrderFinetuneStage:
    """Trains a backbone that has its any-order weights, and the policy that is attached to it, if any.

    The policy takes no part in the backbone's gradient: it reads the memory as it is. `loss` is the cross-entropy in
    nats per token, plus `policy_weight` times the policy's Plackett-Luce loss in nats per rank.
    """

    def __init__(
        self,
        captioner: Captioner,
        backbone: OarBackbone,
        config: OrderFinetuneStageConfig,
        distilled: OrderSet | None = None,
    ) -> None:
        """`distilled` are the orders, and their pictures the training set, where the config asks for them."""
        if (distilled is None) == (config.orders == DISTILLED):
            raise ConfigError("distilled orders are given exactly where the stage trains on them")
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

    def before_step(self, step: Step) -> None:
        """Nothing to prepare."""

    def loss(self, indices: Int[Tensor, "B"], step: Step) -> dict[str, Tensor]:
        pictures, orders = self._orders(indices, step)
        is_random = torch.rand(len(orders), generator=step.generator) < self.config.random_share_at(step.progress)
        if self.distilled is not None:
            # They need no distilled order, so they come from the whole training set: few pictures are soon memorised.
            others = torch.randint(len(self.captioner.tokens), pictures.shape, generator=step.generator)
            pictures = torch.where(is_random, others, pictures)
        shuffled = torch.rand(orders.shape, generator=step.generator).argsort(dim=-1)
        positions = torch.where(is_random[:, None], shuffled, orders)
        ordered = self.captioner.tokens.token_ids[pictures].long().gather(1, positions)
        condition = self.captioner.for_training(pictures, step)
        context = corrupt_context(ordered, self.config.context_noise, self.backbone.config.vocab_size, step)
        positions = positions.to(step.device)
        memory = self.backbone.remember(condition, context.to(step.device), positions)
        tokens = token_cross_entropy(self.backbone.answer(memory, positions), ordered.to(step.device))
        if self.backbone.policy is None:
            return {"total": tokens}
        nats = policy_nats(self.backbone.policy, memory, positions, self.config.policy_ranks, step)
        counts = ~is_random.to(step.device)
        policy = (nats.mean(dim=1) * counts).sum() / counts.sum().clamp_min(1)
        return {"total": tokens + self.config.policy_weight * policy, "tokens": tokens, "policy": policy}

    def _orders(self, indices: Int[Tensor, "B"], step: Step) -> tuple[Int[Tensor, "B"], Int[Tensor, "B L"]]:
        """Which pictures a batch is made of, and the arm's order of each."""
        if self.distilled is not None:
            return self.distilled.indices[indices], self.distilled.orders[indices]
        return indices, _arm_orders(self.config.orders, self.backbone.config.grid, len(indices), step)


def _arm_orders(name: str, grid: Grid, count: int, step: Step) -> Int[Tensor, "B L"]:
    if name == RANDOM:
        return torch.rand(count, grid[0] * grid[1], generator=step.generator).argsort(dim=-1)
    if name != LOCALITY:
        return torch.tensor(PATHS[name](grid)).expand(count, -1)
    seeds = torch.randint(2**62, (count,), generator=step.generator).tolist()
    return torch.tensor([locality(grid, seed) for seed in seeds])


def policy_nats(
    policy: OrderPolicy, memory: Memory, positions: Int[Tensor, "B L"], num_ranks: int, step: Step
) -> Float[Tensor, "B K"]:
    """The policy's loss at `num_ranks` ranks of each picture, drawn without the last one, which leaves no choice."""
    batch, length = positions.shape
    ranks = torch.rand(batch, length - 1, generator=step.generator).argsort(dim=1)[:, :num_ranks].to(positions.device)
    return plackett_luce(policy_scores(policy, memory, positions, ranks), ranks)


def policy_scores(
    policy: OrderPolicy, memory: Memory, positions: Int[Tensor, "B L"], ranks: Int[Tensor, "B K"]
) -> Float[Tensor, "B K L"]:
    """Scores of all positions, in decode order, from the context of each of the ranks; none flows into the memory."""
    (batch, length), num_ranks = positions.shape, ranks.shape[1]
    rows = memory.mask[:, 0][torch.arange(batch, device=ranks.device)[:, None], ranks]
    rotation = Rotation(memory.rotation.cos.repeat(1, num_ranks, 1), memory.rotation.sin.repeat(1, num_ranks, 1))
    mask = rows.repeat_interleave(length, dim=1)[:, None]
    seen = DenseMemory(memory.keys.detach(), memory.values.detach(), mask)
    scores = policy(positions.repeat(1, num_ranks), rotation, seen)
    return scores.view(batch, num_ranks, length)


class OrderPolicyStage:
    """Trains an order policy alone, on the memory of a backbone that stays as it is."""

    def __init__(
        self, captioner: Captioner, backbone: OarBackbone, policy: OrderPolicy, num_ranks: int, distilled: OrderSet
    ) -> None:
        """The backbone is on the training device already."""
        self.captioner = captioner
        self.backbone = backbone
        self.policy = policy
        self.num_ranks = num_ranks
        self.distilled = distilled
        self.module: nn.Module = policy

    def __len__(self) -> int:
        return len(self.distilled)

    def param_groups(self) -> list[ParamGroup]:
        return [ParamGroup(list(self.policy.parameters()))]

    def before_step(self, step: Step) -> None:
        """Nothing to prepare."""

    def loss(self, indices: Int[Tensor, "B"], step: Step) -> dict[str, Tensor]:
        pictures, positions = self.distilled.indices[indices], self.distilled.orders[indices]
        ordered = self.captioner.tokens.token_ids[pictures].long().gather(1, positions)
        positions = positions.to(step.device)
        with torch.no_grad():
            condition = self.captioner.for_training(pictures, step)
            memory = self.backbone.remember(condition, ordered.to(step.device), positions)
        return {"total": policy_nats(self.policy, memory, positions, self.num_ranks, step).mean()}
