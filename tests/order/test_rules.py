"""A chosen order is one object: what it says of itself holds in a step and in teacher forcing."""

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from oar_core.errors import OrderError
from oar_core.models.base import Condition
from oar_core.order.certainty import entropy
from oar_core.order.plan import PlanSpec
from oar_core.order.rules import FIXED, RULES, Asked, Decider, OrderRule
from oar_core.sampling.forced_order import by_rule, forced_orders
from oar_core.sampling.generate import generate
from oar_core.sampling.progress import PictureProgress
from oar_core.sampling.request import SequenceRequest
from oar_core.sampling.sampler import SamplingParams
from tests.engine.backbones import UNCONDITIONAL, tiny_backbone


class MostUncertain(Decider):
    def scores(self, asked: Asked) -> Float[Tensor, "R G"]:
        return asked.as_table(entropy(asked.logits))


@pytest.fixture
def new_order(monkeypatch):
    """An order that no file of the library knows."""
    rule = OrderRule("uncertain", "where the model is least sure", decider=MostUncertain())
    monkeypatch.setitem(RULES, rule.name, rule)
    monkeypatch.setattr("oar_core.order.plan.CHOSEN_ORDERS", tuple(RULES))
    monkeypatch.setattr("oar_core.order.plan.ORDERS", ("raster", *RULES))
    return rule


def positions_drawn(request, backbone):
    drawn = []
    generate(
        backbone,
        [request],
        UNCONDITIONAL,
        on_step=lambda _index, _step, _steps, patches: drawn.extend(patch.position for patch in patches),
    )
    return drawn


def test_a_new_order_is_drawn_and_forced_by_its_rule_alone(new_order):
    backbone = tiny_backbone()
    request = SequenceRequest("new", (1, 2), 3, 0, PlanSpec(new_order.name), SamplingParams())
    drawn = positions_drawn(request, backbone)
    assert sorted(drawn) == list(range(backbone.spec.num_tokens))
    (tokens,) = generate(backbone, [request], UNCONDITIONAL)
    condition = Condition.stack([(1, 2)], torch.device("cpu"))
    forced = forced_orders(backbone, condition, torch.tensor([tokens]), by_rule(new_order, backbone))
    assert forced[0].tolist() == drawn


@pytest.mark.parametrize("name", sorted(set(RULES) - {"likelihood"}))
def test_the_order_that_is_drawn_is_the_order_that_is_forced(name):
    backbone = tiny_backbone()
    request = SequenceRequest("own", (3, 1), 5, 0, PlanSpec(name, candidates=3), SamplingParams())
    (tokens,) = generate(backbone, [request], UNCONDITIONAL)
    condition = Condition.stack([(3, 1)], torch.device("cpu"))
    forced = forced_orders(backbone, condition, torch.tensor([tokens]), by_rule(RULES[name], backbone, 3))
    assert forced[0].tolist() == positions_drawn(request, backbone)


def test_an_order_that_looks_at_draws_cannot_be_forced():
    with pytest.raises(OrderError, match="looks at draws"):
        by_rule(RULES["likelihood"], tiny_backbone())


def test_what_a_rule_asks():
    asked = {name: rule.num_asked(20, 3, 0, 4) for name, rule in (RULES | {"fixed": FIXED}).items()}
    assert asked == {"confidence": 20, "likelihood": 20, "distilled": 3, "shortlist": 12, "fixed": 3}
    assert RULES["shortlist"].num_asked(20, 2, 1, 4) == 11  # the list that the whole group of three had
    assert RULES["shortlist"].num_asked(5, 3, 0, 4) == 5


@pytest.mark.parametrize("name", sorted(RULES))
def test_every_rule_has_a_sentence_and_is_known_to_a_picture(name):
    assert RULES[name].sentence
    spec = tiny_backbone().spec
    progress = PictureProgress(
        SequenceRequest("x", (1,), 0, 0, PlanSpec(name), SamplingParams()), spec, has_policy=True
    )
    assert progress.steps == spec.num_tokens
