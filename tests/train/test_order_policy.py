"""What an order policy learns, and from whom."""

import pytest
import torch

from oar_core.config import OrderPolicyConfig, OrderScore
from oar_core.models.base import Commit, Query
from oar_core.models.order_policy import OrderPolicy
from oar_core.order.score import score_positions
from oar_core.train.losses import plackett_luce, top_one
from oar_core.train.stages.order_distill import OrderSet
from oar_core.train.stages.order_policy import OrderPolicyStage, backbone_scores
from tests.engine.backbones import TINY
from tests.order.permutations import is_permutation
from tests.train.test_order_distill import make_captioner
from tests.train.test_order_finetune import LENGTH, make_backbone, make_step, some_orders


def test_plackett_luce_is_the_softmax_over_what_is_not_placed():
    scores = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    ranks = torch.tensor([[0, 2, 4], [1, 3, 0]])
    nats = plackett_luce(scores, ranks)
    for b in range(2):
        for k in range(3):
            rank = int(ranks[b, k])
            assert nats[b, k].item() == pytest.approx(-scores[b, k, rank:].log_softmax(-1)[0].item(), abs=1e-6)


def test_plackett_luce_over_all_ranks_is_a_distribution_over_orders():
    scores = torch.randn(4, generator=torch.Generator().manual_seed(1))
    orders = torch.cartesian_prod(*[torch.arange(4)] * 4)
    orders = orders[[is_permutation(order) for order in orders.tolist()]]
    by_rank = scores[orders][:, None].expand(-1, 4, -1)
    nats = plackett_luce(by_rank, torch.arange(4).expand(len(orders), -1)).sum(dim=1)
    assert nats.neg().exp().sum().item() == pytest.approx(1.0, abs=1e-5)


def test_policy_scores_are_those_of_the_context_before_each_rank():
    backbone, captioner, orders = make_backbone().eval(), make_captioner(), some_orders(3)
    assert backbone.policy is not None
    torch.nn.init.normal_(backbone.policy.head.weight)
    condition = captioner.fixed(orders.indices, 0, torch.device("cpu"))
    token_ids = captioner.tokens.token_ids[orders.indices].gather(1, orders.orders)
    ranks = torch.tensor([[0, 5], [3, 1], [LENGTH - 2, 7]])
    changed = token_ids.clone()
    for row, rank in enumerate(ranks[:, 0].tolist()):
        changed[row, rank:] = (changed[row, rank:] + 1) % TINY.vocab_size
    with torch.no_grad():
        before, after = (
            backbone.scores_at(backbone.policy, backbone.remember(condition, ids, orders.orders), orders.orders, ranks)
            for ids in (token_ids, changed)
        )
    torch.testing.assert_close(after[:, 0], before[:, 0])
    assert (after[1:2, 1] - before[1:2, 1]).abs().max() == 0, "rank 1 sees nothing that rank 3 does not"
    assert (after[0, 1] - before[0, 1]).abs().max() > 1e-6


def test_the_top_one_loss_is_least_where_scores_are_those_wanted():
    generator = torch.Generator().manual_seed(3)
    wanted, other = torch.randn(2, 2, 3, 6, generator=generator)
    ranks = torch.tensor([[0, 3, 4], [2, 1, 0]])
    shifted = wanted + torch.randn(2, 3, 1, generator=generator)
    least = top_one(wanted, wanted, ranks)
    torch.testing.assert_close(top_one(shifted, wanted, ranks), least)
    assert (top_one(other, wanted, ranks) > least).all()
    remaining = wanted[0, 1, 3:].softmax(-1)
    assert least[0, 1].item() == pytest.approx(-(remaining * remaining.log()).sum().item(), abs=1e-6)
    placed = other.clone()
    placed[:, :, 4:] = wanted[:, :, 4:]
    assert top_one(placed, wanted, torch.full_like(ranks, 4)).sum().item() == pytest.approx(
        top_one(wanted, wanted, torch.full_like(ranks, 4)).sum().item()
    )


@pytest.mark.parametrize("order_score", [OrderScore("negative_entropy", -1.0), OrderScore("margin", 0.5)])
def test_the_teacher_is_what_a_decoding_backbone_would_choose_by(order_score):
    backbone, captioner, orders = make_backbone().eval(), make_captioner(), some_orders(3)
    backbone.order_score = order_score
    condition = captioner.fixed(orders.indices, 0, torch.device("cpu"))
    token_ids = captioner.tokens.token_ids[orders.indices].gather(1, orders.orders)
    ranks = torch.tensor([[0, 5], [3, 1], [LENGTH - 2, 7]])
    with torch.no_grad():
        memory = backbone.remember(condition, token_ids, orders.orders)
        scores = backbone_scores(backbone, memory, orders.orders, ranks)
    for row in range(3):
        for column in range(2):
            rank = int(ranks[row, column])
            cache, slot = backbone.new_cache(1), torch.tensor([0])
            alone = captioner.fixed(orders.indices[row : row + 1], 0, torch.device("cpu"))
            known = Commit(token_ids[row : row + 1, :rank], orders.orders[row : row + 1, :rank], torch.tensor([rank]))
            backbone.prefill(cache, slot, alone, known)
            nothing = Commit(known.token_ids[:, :0], known.positions[:, :0], torch.tensor([0]))
            remaining = orders.orders[row : row + 1, rank:]
            logits = backbone.step(cache, slot, nothing, Query.grid(remaining))[None]
            widths = torch.tensor([remaining.shape[1]])
            wanted = score_positions(logits, remaining, widths, TINY.grid, order_score)
            torch.testing.assert_close(scores[row, column, rank:], wanted[0], atol=1e-5, rtol=1e-5)


def test_a_policy_learns_orders_that_the_context_tells():
    """Every picture is written backwards from the last position: 20 positions, so chance is far from 0 nats."""
    backbone, policy = make_backbone(has_policy=False).eval(), make_policy()
    backwards = torch.arange(LENGTH).flip(0).expand(8, -1)
    stage = OrderPolicyStage(
        make_captioner(), backbone, policy, OrderSet(torch.arange(8), backwards), num_ranks=6, teacher="orders"
    )
    losses = losses_of(stage, 60)
    assert losses[0] > 1.8
    assert sum(losses[-5:]) / 5 < 0.5
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_a_policy_learns_what_its_backbone_wants():
    """An untrained backbone is about as sure of one position as of another, and wants what lies farthest off."""
    backbone, policy, orders = make_backbone(has_policy=False).eval(), make_policy(), some_orders(8)
    backbone.order_score = OrderScore("negative_entropy", -1.0)
    stage = OrderPolicyStage(make_captioner(), backbone, policy, orders, num_ranks=6)
    assert _regret(stage) > 0.5
    losses_of(stage, 150)
    assert _regret(stage) < 0.25
    assert all(parameter.grad is None for parameter in backbone.parameters())


def make_policy() -> OrderPolicy:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return OrderPolicy(OrderPolicyConfig(width=32, num_layers=1), TINY)


def losses_of(stage: OrderPolicyStage, num_steps: int) -> list[float]:
    optimizer = torch.optim.AdamW(stage.policy.parameters(), lr=1e-2)
    losses = []
    for number in range(num_steps):
        loss = stage.loss(torch.arange(len(stage)), make_step(number, num_steps, number))["total"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def _regret(stage: OrderPolicyStage) -> float:
    """By how much the policy's first choice scores below the backbone's, on average over ranks 1 to 5."""
    positions = stage.distilled.orders
    condition = stage.captioner.fixed(stage.distilled.indices, 0, torch.device("cpu"))
    token_ids = stage.captioner.tokens.token_ids[stage.distilled.indices].gather(1, positions)
    memory, ranks = stage.backbone.remember(condition, token_ids, positions), torch.arange(1, 6).expand(8, -1)
    placed = torch.arange(LENGTH) < ranks[..., None]
    wanted = backbone_scores(stage.backbone, memory, positions, ranks).masked_fill(placed, -torch.inf)
    chosen = stage.backbone.scores_at(stage.policy, memory, positions, ranks).masked_fill(placed, -torch.inf).argmax(-1)
    return (wanted.amax(-1) - wanted.gather(-1, chosen[..., None])[..., 0]).mean().item()
