"""Fine-tuning on orders, and noise in the context."""

from dataclasses import replace

import pytest
import torch

from oar_core.config import OrderPolicyConfig
from oar_core.errors import ConfigError
from oar_core.models.oar.backbone import OarBackbone
from oar_core.models.order_policy import OrderPolicy
from oar_core.order.paths import halton, spiral
from oar_core.order.tree import LEAF, OrderTree
from oar_core.train.context_noise import corrupt_context
from oar_core.train.loop import Step
from oar_core.train.stages.order_distill import OrderSet
from oar_core.train.stages.order_finetune import (
    ARMS,
    OrderFinetuneStage,
    OrderFinetuneStageConfig,
    arm,
)
from tests.engine.backbones import TINY
from tests.order.permutations import is_permutation
from tests.train.test_order_distill import make_captioner

LENGTH = TINY.num_tokens


def make_step(number: int = 0, num_steps: int = 10, seed: int = 0) -> Step:
    return Step(number, num_steps, torch.device("cpu"), torch.Generator().manual_seed(seed))


# The caption "a cat" lacks this token, "two dogs" has it.
TREE = OrderTree(
    torch.tensor([[1 + ord("w") % 15, 1, 2], [LEAF, 0, 0], [LEAF, 1, 1]]),
    torch.tensor([halton(TINY.grid), spiral(TINY.grid)]),
)


def make_backbone(*, has_policy: bool = True) -> OarBackbone:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = OarBackbone(TINY)
        backbone.order_tree = TREE
        if has_policy:
            backbone.policy = OrderPolicy(OrderPolicyConfig(width=16, num_layers=1), TINY)
    return backbone


def some_orders(count: int = 8) -> OrderSet:
    generator = torch.Generator().manual_seed(5)
    return OrderSet(torch.arange(2, 2 + count), torch.rand(count, LENGTH, generator=generator).argsort(-1))


class Recorder(OarBackbone):
    """Remembers what it was asked to read."""

    def forward(self, condition, token_ids, positions):
        self.seen = token_ids, positions
        return super().forward(condition, token_ids, positions)


def positions_seen(config: OrderFinetuneStageConfig, step: Step, count: int = 8) -> torch.Tensor:
    backbone = Recorder(TINY)
    backbone.order_tree = TREE
    distilled = some_orders() if config.orders == "distilled" else None
    stage = OrderFinetuneStage(make_captioner(), backbone, config, distilled)
    stage.loss(torch.arange(count), step)
    return backbone.seen[1]


def test_only_what_has_an_order_is_trained_on_with_its_order():
    seen = positions_seen(OrderFinetuneStageConfig(random_share=0.0, is_annealed=False), make_step())
    assert torch.equal(seen, some_orders().orders)


def test_the_random_share_is_the_share_of_pictures_in_random_order():
    config = OrderFinetuneStageConfig(random_share=0.5, is_annealed=False)
    orders = some_orders().orders
    kept = [
        (positions_seen(config, make_step(seed=seed)) == orders).all(dim=1).float().mean().item() for seed in range(30)
    ]
    assert sum(kept) / len(kept) == pytest.approx(0.5, abs=0.12)
    assert not (positions_seen(replace(config, random_share=1.0), make_step()) == orders).all(dim=1).any()


def test_pictures_in_random_order_come_from_the_whole_training_set():
    backbone, captioner = Recorder(TINY), make_captioner()
    stage = OrderFinetuneStage(captioner, backbone, OrderFinetuneStageConfig(random_share=1.0), some_orders(2))
    pictures = set()
    for seed in range(20):
        stage.loss(torch.arange(2), make_step(seed=seed))
        token_ids, positions = backbone.seen
        by_position = token_ids.gather(1, positions.argsort(-1))
        pictures |= {
            row for ids in by_position for row in range(12) if torch.equal(captioner.tokens.token_ids[row], ids)
        }
    assert pictures == set(range(12))


def test_an_annealed_share_falls_from_one_over_the_first_half():
    config = arm("raster", OrderFinetuneStageConfig())
    assert [config.random_share_at(t) for t in (0.0, 0.25, 0.5, 0.9)] == [1.0, 0.5, 0.0, 0.0]
    assert [OrderFinetuneStageConfig().random_share_at(t) for t in (0.0, 0.25, 0.5, 0.9)] == [1.0, 0.5, 0.1, 0.1]
    assert replace(config, random_share=0.3).random_share_at(0.49) == 0.3


def test_each_arm_trains_on_its_order():
    late = make_step(9)
    assert positions_seen(arm("raster", OrderFinetuneStageConfig()), late).tolist() == [list(range(LENGTH))] * 8
    fixed = OrderFinetuneStageConfig(orders="halton", random_share=0.0, is_annealed=False)
    assert positions_seen(fixed, late).tolist() == [list(halton(TINY.grid))] * 8
    near = positions_seen(replace(fixed, orders="locality"), late).tolist()
    assert len({tuple(order) for order in near}) == 8
    assert all(is_permutation(order) for order in near)
    assert all(abs(order[1] - order[0]) in {1, TINY.grid[1]} for order in near)


@pytest.mark.parametrize("unconditional_share", [0.0, 1.0])
def test_a_caption_decides_the_order_also_where_it_is_dropped(unconditional_share):
    config = arm("prompted", OrderFinetuneStageConfig(random_share=0.0, is_annealed=False))
    backbone = Recorder(TINY)
    backbone.order_tree = TREE
    captioner = replace(make_captioner(), unconditional_share=unconditional_share)
    OrderFinetuneStage(captioner, backbone, config).loss(torch.arange(8), make_step())
    assert backbone.seen[1].tolist() == [TREE.orders[index % 2].tolist() for index in range(8)]


def test_orders_that_prompts_decide_need_an_order_tree():
    with pytest.raises(ConfigError, match="the backbone has none"):
        OrderFinetuneStage(make_captioner(), OarBackbone(TINY), arm("prompted", OrderFinetuneStageConfig()))


def test_prompts_come_with_the_conditions_that_training_draws():
    captioner = replace(make_captioner(), unconditional_share=0.5)
    condition, prompts = captioner.with_prompts(torch.arange(12), make_step())
    assert torch.equal(condition.ids, captioner.for_training(torch.arange(12), make_step()).ids)
    assert 0 < condition.lengths.eq(0).sum() < 12
    assert prompts == captioner.prefixes(["a cat", "two dogs"] * 6)


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_has_a_finite_loss_and_teaches_all_that_it_trains(name):
    config = arm(name, OrderFinetuneStageConfig(context_noise=0.2, random_share=0.0))
    backbone = make_backbone(has_policy=bool(config.policy_weight))
    stage = OrderFinetuneStage(make_captioner(), backbone, config, some_orders() if name == "distilled" else None)
    losses = stage.loss(torch.arange(8), make_step(9))
    losses["total"].backward()
    untaught = {key for key, value in backbone.named_parameters() if value.grad is None or not value.grad.any()}
    assert untaught == set()
    assert ("policy" in losses) == (name == "distilled")
    groups = [parameter for group in stage.param_groups() for parameter in group.parameters]
    assert len(groups) == len(list(backbone.parameters()))


def test_the_policy_takes_no_part_in_the_gradient_of_the_backbone():
    gradients = []
    for weight in (1.0, 50.0):
        backbone = make_backbone()
        config = OrderFinetuneStageConfig(policy_weight=weight)
        stage = OrderFinetuneStage(make_captioner(), backbone, config, some_orders())
        stage.loss(torch.arange(8), make_step())["total"].backward()
        gradients.append(backbone.context.memory.weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_distilled_orders_are_given_exactly_where_they_are_trained_on():
    for config, distilled in ((OrderFinetuneStageConfig(), None), (arm("halton", OrderFinetuneStageConfig()), 1)):
        with pytest.raises(ConfigError):
            OrderFinetuneStage(make_captioner(), make_backbone(), config, distilled and some_orders())


@pytest.mark.parametrize("values", [{"orders": "zigzag"}, {"random_share": 1.5}, {"policy_teacher": "rumour"}])
def test_an_impossible_fine_tuning_is_refused(values):
    with pytest.raises(ConfigError):
        OrderFinetuneStageConfig(**values)


def test_no_noise_draws_nothing():
    step = make_step()
    before = step.generator.get_state()
    token_ids = torch.zeros(3, 4, dtype=torch.long)
    assert corrupt_context(token_ids, 0.0, 9, step) is token_ids
    assert torch.equal(step.generator.get_state(), before)


def test_noise_hits_half_of_its_highest_share_on_average_and_falls_to_nothing():
    token_ids = torch.full((400, 50), 1000)
    shares = [
        (corrupt_context(token_ids, 0.4, 1000, make_step(number)) != 1000).float().mean().item()
        for number in (0, 5, 10)
    ]
    assert shares == pytest.approx([0.2, 0.1, 0.0], abs=0.02)


def test_noise_is_in_the_context_and_not_in_the_targets(monkeypatch):
    backbone = Recorder(TINY)
    config = OrderFinetuneStageConfig(random_share=0.0, is_annealed=False, context_noise=1.0)
    stage = OrderFinetuneStage(make_captioner(), backbone, config, some_orders())
    targets = []
    monkeypatch.setattr(
        "oar_core.train.stages.order_finetune.token_cross_entropy",
        lambda logits, token_ids: targets.append(token_ids) or logits.mean(),
    )
    stage.loss(torch.arange(8), make_step())
    orders = some_orders()
    clean = make_captioner().tokens.token_ids[orders.indices].gather(1, orders.orders)
    assert torch.equal(targets[0], clean)
    assert 0.2 < (backbone.seen[0] != clean).float().mean() < 0.8


def test_distilled_orders_alone_are_drawn_together():
    drawn = OrderFinetuneStageConfig(consensus=1.0)
    assert arm("distilled", drawn).consensus == 1.0
    assert arm("raster", drawn).consensus == 0.0
    with pytest.raises(ConfigError, match="'halton' cannot be drawn together"):
        OrderFinetuneStageConfig(orders="halton", consensus=0.5)
    with pytest.raises(ConfigError, match="go by none"):
        OrderFinetuneStageConfig(orders="halton", score="entropy")
    with pytest.raises(ConfigError, match="unknown score 'luck'"):
        OrderFinetuneStageConfig(score="luck")
    assert arm("raster", OrderFinetuneStageConfig(score="entropy")).score is None
