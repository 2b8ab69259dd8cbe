"""Orders of given pictures are those in which `generate` writes them."""

import pytest
import torch

from oar_core.models.base import Condition
from oar_core.order.plan import PlanSpec
from oar_core.sampling.forced_order import by_policy, forced_orders, orders_by_name
from oar_core.sampling.generate import generate
from oar_core.sampling.progress import Patch
from oar_core.sampling.request import SequenceRequest
from oar_core.sampling.sampler import SamplingParams
from oar_lab.eval.likelihood import bits_per_token
from tests.engine.backbones import tiny_backbone

CONDITIONS = [(1, 5, 3), (2,), (4, 4)]
CPU = torch.device("cpu")


@pytest.mark.parametrize("order", ["distilled", "confidence", "raster", "random", "locality"])
def test_a_finished_picture_has_the_order_in_which_it_was_written(order: str) -> None:
    backbone = tiny_backbone()
    written: list[list[int]] = [[] for _ in CONDITIONS]

    def note(index: int, _step: int, _steps: int, patches: tuple[Patch, ...]) -> None:
        written[index].extend(patch.position for patch in patches)

    requests = [
        SequenceRequest(str(index), condition, 7, index, PlanSpec(order=order), SamplingParams())
        for index, condition in enumerate(CONDITIONS)
    ]
    token_ids = torch.tensor(generate(backbone, requests, (0,), on_step=note))
    orders = orders_by_name(backbone, order, Condition.stack(CONDITIONS, CPU), token_ids, seed=7)
    assert orders.tolist() == written


def test_positions_chosen_together_are_ranked_by_what_is_known_before_them() -> None:
    backbone = tiny_backbone()
    token_ids = torch.arange(backbone.spec.num_tokens)[None] % backbone.spec.vocab_size
    condition = Condition.stack([(3,)], CPU)
    alone, grouped = (
        forced_orders(backbone, condition, token_ids, by_policy(backbone), per_step=count) for count in (1, 3)
    )
    assert sorted(grouped[0].tolist()) == list(range(token_ids.shape[1]))
    assert grouped[0, 0] == alone[0, 0]


def test_bits_depend_on_the_order_and_pictures_not_on_the_batches() -> None:
    backbone = tiny_backbone()
    generator = torch.Generator().manual_seed(0)
    token_ids = torch.randint(backbone.spec.vocab_size, (5, backbone.spec.num_tokens), generator=generator)
    conditions = [(1,), (2, 3), (4,), (5, 1, 2), (3,)]
    found = {
        (order, size): bits_per_token(backbone, token_ids, conditions, order, batch_size=size)
        for order in ("random", "raster", "distilled")
        for size in (2, 5)
    }
    for order in ("random", "raster", "distilled"):
        assert found[order, 2] == pytest.approx(found[order, 5], rel=1e-5)
    assert len({round(bits, 4) for bits in found.values()}) == 3
