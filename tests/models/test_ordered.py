"""Backbones that can be taught an order: what training asks of them equals what decoding gives."""

import pytest
import torch

from oar_core.config import OrderPolicyConfig
from oar_core.models.base import Commit, Condition, Query
from oar_core.models.load import load_model
from oar_core.models.ordered import OrderedBackbone
from oar_core.nn.kv_cache import KVCache
from tests.engine.backbones import tiny_backbone
from tests.models.folders import RASTER_ONLY, write_golden_model

FAMILIES = ("oar", "arpg", "lpd", "randar")
COUNT = 3
SLOTS = torch.arange(COUNT)
CLOSE = {"atol": 2e-5, "rtol": 0}


@pytest.fixture(scope="module", params=FAMILIES)
def backbone(request, tmp_path_factory) -> OrderedBackbone:
    found = tiny_backbone()
    if request.param != "oar":
        folder = tmp_path_factory.mktemp("models") / request.param
        write_golden_model(request.param, folder)
        found = load_model(folder, "cpu", torch.float32).backbone
    assert isinstance(found, OrderedBackbone)
    generator = torch.Generator().manual_seed(4)
    found.policy = found.new_policy(OrderPolicyConfig(width=16, num_layers=2)).eval()
    for parameter in found.policy.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return found


@pytest.fixture
def pictures(backbone: OrderedBackbone) -> tuple[Condition, torch.Tensor, torch.Tensor]:
    """Conditions, and tokens and positions in decode order."""
    generator = torch.Generator().manual_seed(5)
    spec = backbone.spec
    condition = Condition.stack([[3], [1], [4]], torch.device("cpu"))
    positions = torch.stack([torch.randperm(spec.num_tokens, generator=generator) for _ in range(COUNT)])
    return condition, torch.randint(spec.vocab_size, positions.shape, generator=generator), positions


def cached(backbone: OrderedBackbone, pictures, rank: int) -> tuple[KVCache, Commit]:
    """A cache that lacks the latest of the tokens of rank below `rank`, and that token."""
    condition, token_ids, positions = pictures
    cache, known = backbone.new_cache(COUNT), max(0, rank - 1)
    first, rest = (
        Commit(token_ids[:, part], positions[:, part], torch.full((COUNT,), part.stop - part.start))
        for part in (slice(0, known), slice(known, rank))
    )
    backbone.prefill(cache, SLOTS, condition, first)
    return cache, rest


@torch.no_grad()
def alone(backbone: OrderedBackbone, pictures, rank: int) -> torch.Tensor:
    """Logits at all positions, each asked by a step of its own."""
    asked = []
    for column in range(backbone.spec.num_tokens):
        cache, commit = cached(backbone, pictures, rank)
        asked.append(backbone.step(cache, SLOTS, commit, Query.grid(pictures[2][:, column : column + 1])))
    return torch.stack(asked, dim=1)


@torch.no_grad()
@pytest.mark.parametrize("rank", [0, 1, 5])
def test_all_positions_asked_together_answer_as_each_does_alone(backbone: OrderedBackbone, pictures, rank: int) -> None:
    condition, token_ids, positions = pictures
    wanted = alone(backbone, pictures, rank)
    cache, commit = cached(backbone, pictures, rank)
    found = backbone.ask_alone(cache, SLOTS, commit, Query.grid(positions)).unflatten(0, positions.shape)
    torch.testing.assert_close(found, wanted, **CLOSE)
    ranks = torch.tensor([[rank, 2]] * COUNT)
    memory = backbone.read(condition, token_ids, positions).memory
    trained = backbone.ask_at(memory, positions, ranks)[:, 0]
    torch.testing.assert_close(trained, wanted, **CLOSE)


@torch.no_grad()
def test_the_pass_that_remembers_has_the_logits_of_the_training_pass(backbone: OrderedBackbone, pictures) -> None:
    condition, token_ids, positions = pictures
    found = backbone.read(condition, token_ids, positions)
    torch.testing.assert_close(found.logits, backbone(condition, token_ids, positions), atol=1e-6, rtol=0)
    ranks = torch.arange(positions.shape[1]).expand(COUNT, -1)
    asked = backbone.ask_at(found.memory, positions, ranks)
    torch.testing.assert_close(asked.diagonal(dim1=1, dim2=2).transpose(1, 2), found.logits, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("rank", [0, 1, 7])
def test_a_policy_scores_in_decoding_as_in_training(backbone: OrderedBackbone, pictures, rank: int) -> None:
    condition, token_ids, positions = pictures
    assert backbone.policy is not None
    memory = backbone.read(condition, token_ids, positions).memory
    trained = backbone.scores_at(backbone.policy, memory, positions, torch.full((COUNT, 1), rank))[:, 0]
    cache, commit = cached(backbone, pictures, rank)
    backbone.step(cache, SLOTS, commit, Query(positions[:0, 0], (0,) * COUNT))
    lengths = cache.lengths.clone()
    scores = backbone.score(cache, SLOTS, Query.grid(positions)).view(positions.shape)
    torch.testing.assert_close(scores, trained, atol=1e-4, rtol=1e-3)
    assert scores.std() > 0.05
    assert torch.equal(cache.lengths, lengths)


@torch.no_grad()
def test_questions_on_the_side_change_nothing_that_is_answered_later(backbone: OrderedBackbone, pictures) -> None:
    _, token_ids, positions = pictures
    told = []
    for asks in (False, True):
        cache, commit = cached(backbone, pictures, 4)
        first = backbone.step(cache, SLOTS, commit, Query.grid(positions[:, 4:6]))
        if asks:
            rest = Query.grid(positions[:, 4:])
            backbone.ask_alone(cache, SLOTS, commit.emptied, rest)
            backbone.score(cache, SLOTS, rest)
        seen = torch.full((COUNT, 2), 2)
        group = Commit(token_ids[:, 4:6], positions[:, 4:6], torch.full((COUNT,), 2), seen)
        told.append((first, backbone.step(cache, SLOTS, group, Query.grid(positions[:, 6:7]))))
    for plain, asked in zip(*told):
        torch.testing.assert_close(asked, plain, atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", RASTER_ONLY)
def test_a_network_that_writes_row_by_row_can_be_taught_none(family: str, tmp_path) -> None:
    write_golden_model(family, tmp_path / family)
    assert not isinstance(load_model(tmp_path / family, "cpu", torch.float32).backbone, OrderedBackbone)
