"""The score by which a model chooses its own order."""

import math

import pytest
import torch

from oar_core.config import ORDER_SCORES, OrderScore
from oar_core.errors import ConfigError
from oar_core.order.plan import PlanSpec
from oar_core.order.score import CERTAINTIES, distance_to_known, score_positions
from oar_core.sampling.generate import generate
from oar_core.sampling.progress import Patch
from oar_core.sampling.request import SequenceRequest
from oar_core.sampling.sampler import SamplingParams
from tests.engine.backbones import TINY, tiny_backbone

GRID = (3, 4)


def test_the_distance_is_that_to_the_nearest_known_position() -> None:
    """Rows of different widths: what stands behind a row's width is padding and no remaining position."""
    known = [{0, 11}, {5}, set[int]()]
    remaining = [[position for position in range(12) if position not in row] for row in known]
    padded = torch.tensor([[*row, *[0] * (12 - len(row))] for row in remaining])
    found = distance_to_known(padded, torch.tensor([len(row) for row in remaining]), GRID)
    for row, (positions, given) in enumerate(zip(remaining, known)):
        wanted = [min((math.dist(divmod(p, 4), divmod(k, 4)) for k in given), default=0.0) for p in positions]
        assert found[row, : len(positions)].tolist() == pytest.approx(wanted)


@pytest.mark.parametrize("name", ORDER_SCORES)
def test_without_a_weight_certainty_is_all(name: str) -> None:
    logits = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    remaining = torch.arange(5).expand(2, -1)
    scores = score_positions(logits, remaining, torch.tensor([5, 5]), GRID, OrderScore(name))
    assert torch.equal(scores, CERTAINTIES[name](logits))


def test_scores_have_names() -> None:
    assert set(CERTAINTIES) == set(ORDER_SCORES)
    with pytest.raises(ConfigError, match="unknown order score 'luck'"):
        OrderScore("luck")


def drawn_order(order_score: OrderScore) -> list[int]:
    backbone = tiny_backbone()
    backbone.order_score = order_score
    order: list[int] = []

    def note(_index: int, _step: int, _steps: int, patches: tuple[Patch, ...]) -> None:
        order.extend(patch.position for patch in patches)

    request = SequenceRequest("a", (1, 2), 3, 0, PlanSpec(order="confidence"), SamplingParams(guidance=2.0))
    generate(backbone, [request], (0,), on_step=note)
    return order


def test_a_model_draws_in_the_order_of_its_score() -> None:
    near, far = drawn_order(OrderScore(distance_weight=1e3)), drawn_order(OrderScore(distance_weight=-1e3))
    assert near[0] == far[0] == drawn_order(OrderScore())[0]
    cells = [divmod(position, TINY.grid[1]) for position in range(TINY.num_tokens)]
    for order, pick in ((near, min), (far, max)):
        for rank in range(1, len(order)):
            distances = [min(math.dist(cells[p], cells[k]) for k in order[:rank]) for p in order[rank:]]
            assert distances[0] == pytest.approx(pick(distances))


def test_each_score_draws_an_order_of_its_own() -> None:
    assert len({tuple(drawn_order(OrderScore(name))) for name in ORDER_SCORES}) == len(ORDER_SCORES)
