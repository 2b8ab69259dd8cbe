"""The loss table against direct evaluation, and its best sizes against all there are."""

from itertools import combinations

import pytest
import torch
import torch.nn.functional as F

from oar_core.errors import ConfigError, StepsError
from oar_core.models.base import Commit, Condition, Query
from oar_core.models.model import Model
from oar_core.order.paths import halton
from oar_core.sampling.forced_order import orders_by_name
from oar_lab.eval.group_loss import best_sizes, excess, loss_table, schedule_cost
from oar_lab.eval.likelihood import bits_per_token, picture_bits

CAPTIONS = ["a red circle", "a blue square, seen from the front", "", "a red square", "a circle"]


def sample(model: Model) -> tuple[torch.Tensor, list[tuple[int, ...]]]:
    spec = model.backbone.spec
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(spec.vocab_size, (len(CAPTIONS), spec.num_tokens), generator=generator)
    return ids, model.conditioner.encode_captions(CAPTIONS, max_length=spec.max_condition)


@pytest.mark.parametrize("order", ["halton", "random", "confidence"])
def test_each_entry_is_the_loss_of_one_query_after_a_fresh_prefill(tiny_pipeline: Model, order: str) -> None:
    backbone = tiny_pipeline.backbone
    ids, conditions = sample(tiny_pipeline)
    table = loss_table(backbone, ids, conditions, order, batch_size=2)
    condition = Condition.stack(conditions, torch.device("cpu"))
    length, slots = backbone.spec.num_tokens, torch.arange(len(ids))
    positions = torch.cat([
        orders_by_name(backbone, order, Condition.stack([part], torch.device("cpu")), ids[i : i + 1], seed=0, first=i)
        for i, part in enumerate(conditions)
    ])  # fmt: skip
    ordered = ids.gather(1, positions)
    empty = Commit(ids[:, :0], ids[:, :0], torch.zeros(len(ids), dtype=torch.long))
    for known, rank in ((0, 0), (0, 7), (3, 3), (3, 12), (11, 19), (length - 1, length - 1)):
        cache = backbone.new_cache(len(ids))
        counts = torch.full((len(ids),), known)
        backbone.prefill(cache, slots, condition, Commit(ordered[:, :known], positions[:, :known], counts))
        logits = backbone.step(cache, slots, empty, Query.grid(positions[:, rank : rank + 1]))
        assert table[known, rank].item() == pytest.approx(F.cross_entropy(logits, ordered[:, rank]).item(), rel=1e-4)
    assert not table.tril(-1).any()


def test_the_diagonal_is_the_likelihood(tiny_pipeline: Model) -> None:
    ids, conditions = sample(tiny_pipeline)
    table = loss_table(tiny_pipeline.backbone, ids, conditions, "halton")
    bits = bits_per_token(tiny_pipeline.backbone, ids, conditions, "halton")
    nats = bits * len(halton(tiny_pipeline.grid)) * torch.log(torch.tensor(2.0)).item()
    assert table.diagonal().sum().item() == pytest.approx(nats, rel=1e-4)


@pytest.mark.parametrize("sizes", [(1,) * 20, (3, 1, 6, 10), (20,)])
def test_the_bits_of_a_schedule_are_its_cost(tiny_pipeline: Model, sizes: tuple[int, ...]) -> None:
    ids, conditions = sample(tiny_pipeline)
    table = loss_table(tiny_pipeline.backbone, ids, conditions, "prompted")
    bits = picture_bits(tiny_pipeline.backbone, ids, conditions, "prompted", sizes=sizes, batch_size=2)
    nats = bits * len(ids[0]) * torch.log(torch.tensor(2.0))
    assert nats.mean().item() == pytest.approx(schedule_cost(table, sizes), rel=1e-4)


def test_queries_that_see_each_other_are_refused(tiny_pipeline: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    ids, conditions = sample(tiny_pipeline)
    monkeypatch.setattr(type(tiny_pipeline.backbone.spec), "can_ask_all", False)
    with pytest.raises(ConfigError, match="see each other"):
        loss_table(tiny_pipeline.backbone, ids, conditions, "halton")


@pytest.mark.parametrize("seed", range(5))
def test_the_best_sizes_are_the_best_of_all(seed: int) -> None:
    length = 7
    table = torch.rand(length, length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).triu()
    found = best_sizes(table, length)
    for steps in range(1, length + 1):
        cuts = combinations(range(1, length), steps - 1)
        every = [tuple(b - a for a, b in zip((0, *cut), (*cut, length))) for cut in cuts]
        assert found[steps] == min(every, key=lambda sizes: schedule_cost(table, sizes))
    assert found[length] == (1,) * length
    assert excess(table, found[length]) == pytest.approx(0)


def test_more_steps_than_positions_are_refused() -> None:
    with pytest.raises(StepsError, match="1 to 3"):
        best_sizes(torch.zeros(3, 3, dtype=torch.float64), 4)
