"""The order policy learns to choose: from orders, or from what a backbone says that is asked for every position."""

from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from oar_core.models.order_policy import OrderPolicy
from oar_core.models.ordered import Memory, OrderedBackbone
from oar_core.order.score import score_positions
from oar_core.train.loop import Stage, Step
from oar_core.train.losses import plackett_luce, top_one
from oar_core.train.stages.order_distill import OrderSet
from oar_core.train.tokens import Captioner

BY_ORDERS, BY_SCORES = "orders", "scores"
TEACHERS = (BY_ORDERS, BY_SCORES)
RANDOM_SHARE = 0.5  # of pictures; a policy that strays from its teacher's path has to find its way on from there
TEACHER_NATS = 0.3  # by which a score has to lead for the teacher to be e times as sure of it


class OrderPolicyStage(Stage):
    """Trains an order policy alone, on the memory of a backbone that stays as it is: to name the next position of its
    orders, or, taught by scores, to want each of the remaining positions as much as the backbone does that is asked
    for all of them. Contexts are those along the orders, of a half of the pictures along random ones where scores
    teach: these can be had anywhere."""

    can_shard: ClassVar[bool] = True

    def __init__(
        self,
        captioner: Captioner,
        backbone: OrderedBackbone,
        policy: OrderPolicy,
        distilled: OrderSet,
        *,
        num_ranks: int,
        teacher: str = BY_SCORES,
    ) -> None:
        """The backbone is on the training device already. At `num_ranks` ranks of each picture, drawn anew at each
        step, `teacher`, one of TEACHERS, is asked."""
        self.captioner = captioner
        self.backbone = backbone
        self.policy = policy
        self.distilled = distilled
        self.num_ranks = num_ranks
        self.teacher = teacher
        self.module: nn.Module = policy

    def __len__(self) -> int:
        return len(self.distilled)

    def loss(self, indices: Int[Tensor, "B"], step: Step) -> dict[str, Tensor]:
        pictures, positions = self.distilled.indices[indices], self.distilled.orders[indices]
        if self.teacher == BY_SCORES:
            positions = _partly_random(positions, RANDOM_SHARE, step)
        ordered = self.captioner.tokens.token_ids[pictures].long().gather(1, positions)
        positions = positions.to(step.device)
        with torch.no_grad():
            condition = self.captioner.for_training(pictures, step)
            memory = self.backbone.read(condition, ordered.to(step.device), positions).memory
        if self.teacher == BY_ORDERS:
            nats = policy_nats(self.backbone, self.policy, memory, positions, self.num_ranks, step)
            return {"total": nats.mean()}
        ranks = _draw_ranks(positions, self.num_ranks, step)
        with torch.no_grad():
            target = backbone_scores(self.backbone, memory, positions, ranks) / TEACHER_NATS
        found = self.backbone.scores_at(self.policy, memory, positions, ranks)
        return {"total": top_one(found, target, ranks).mean()}


def policy_nats(
    backbone: OrderedBackbone,
    policy: OrderPolicy,
    memory: Memory,
    positions: Int[Tensor, "B L"],
    num_ranks: int,
    step: Step,
) -> Float[Tensor, "B K"]:
    """The policy's loss on orders, at `num_ranks` ranks of each picture."""
    ranks = _draw_ranks(positions, num_ranks, step)
    return plackett_luce(backbone.scores_at(policy, memory, positions, ranks), ranks)


def _partly_random(orders: Int[Tensor, "B L"], share: float, step: Step) -> Int[Tensor, "B L"]:
    is_random = torch.rand(len(orders), generator=step.generator) < share
    shuffled = torch.rand(orders.shape, generator=step.generator).argsort(dim=-1)
    return torch.where(is_random[:, None], shuffled, orders)


def _draw_ranks(positions: Int[Tensor, "B L"], num_ranks: int, step: Step) -> Int[Tensor, "B K"]:
    """Without the last one, which leaves no choice."""
    batch, length = positions.shape
    drawn = torch.rand(batch, length - 1, generator=step.generator).argsort(dim=1)
    return drawn[:, :num_ranks].to(positions.device)


def backbone_scores(
    backbone: OrderedBackbone, memory: Memory, positions: Int[Tensor, "B L"], ranks: Int[Tensor, "B K"]
) -> Float[Tensor, "B K L"]:
    """Scores of all positions, in decode order, from the context before each of the ranks: what the backbone would
    choose by if every position were asked for its token."""
    length = positions.shape[1]
    logits = backbone.ask_at(memory, positions, ranks).float()
    # Backwards, those that remain come first and those that are placed are the padding.
    backwards = logits.flatten(0, 1).flip(1)
    remaining = positions.flip(1).repeat_interleave(ranks.shape[1], dim=0)
    widths = length - ranks.flatten()
    scores = score_positions(backwards, remaining, widths, backbone.spec.grid, backbone.order_score)
    return scores.flip(1).unflatten(0, ranks.shape)
