import copy

import pytest
import torch

from oar_core.config import BackboneConfig, OrderPolicyConfig
from oar_core.errors import ConfigError
from oar_core.models.base import Commit, Condition, Query
from oar_core.models.oar.backbone import OarBackbone
from oar_core.models.order_policy import OrderPolicy
from oar_core.nn.attention import DenseMemory

CONFIG = BackboneConfig(
    grid=(3, 4), vocab_size=17, condition_vocab=11, max_condition=5, width=32, num_heads=2,
    num_context_layers=2, num_query_layers=1,
)  # fmt: skip
LENGTH = CONFIG.num_tokens


@pytest.fixture(scope="module")
def backbone() -> OarBackbone:
    generator = torch.Generator().manual_seed(0)
    backbone = OarBackbone(CONFIG).eval()
    backbone.policy = OrderPolicy(OrderPolicyConfig(width=16, num_layers=2), CONFIG).eval()
    for parameter in backbone.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return backbone


@pytest.fixture(scope="module")
def pictures() -> tuple[Condition, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    condition = Condition(torch.randint(11, (3, 5), generator=generator), torch.tensor([5, 1, 3]))
    positions = torch.stack([torch.randperm(LENGTH, generator=generator) for _ in range(3)])
    return condition, torch.randint(17, (3, LENGTH), generator=generator), positions


def cached(backbone: OarBackbone, pictures, counts: list[int]):
    """A cache that holds the first `counts[b]` tokens of each picture."""
    condition, token_ids, positions = pictures
    cache = backbone.new_cache(3)
    width = max(counts)
    commit = Commit(token_ids[:, :width], positions[:, :width], torch.tensor(counts))
    backbone.prefill(cache, torch.arange(3), condition, commit)
    return cache


def score(backbone: OarBackbone, cache, slots: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    """Scores of a table of candidates, (B, G)."""
    return backbone.score(cache, slots, Query.grid(candidates)).view(candidates.shape)


@pytest.mark.parametrize("rank", [0, 1, 7, LENGTH - 1])
def test_the_scores_of_a_decode_are_those_of_the_training_pass(backbone, pictures, rank):
    condition, token_ids, positions = pictures
    with torch.no_grad():
        memory = backbone.remember(condition, token_ids, positions)
        rows = memory.mask[:, :, rank : rank + 1]
        rotation = backbone.rotary(positions, torch.float32)
        trained = backbone.policy(positions, rotation, DenseMemory(memory.keys[-1], memory.values[-1], rows))
    scores = score(backbone, cached(backbone, pictures, [rank] * 3), torch.arange(3), positions)
    torch.testing.assert_close(scores, trained, rtol=1e-3, atol=1e-4)
    assert scores.std() > 0.1


def test_a_score_depends_neither_on_other_candidates_nor_on_other_rows(backbone, pictures):
    cache = cached(backbone, pictures, [2, 5, 0])
    scores = score(backbone, cache, torch.arange(3), torch.arange(LENGTH).expand(3, -1))
    alone = score(backbone, cache, torch.tensor([1]), torch.tensor([[9, 4]]))
    torch.testing.assert_close(alone[0], scores[1, [9, 4]], rtol=1e-3, atol=1e-4)


def test_scoring_leaves_the_cache_as_it_was(backbone, pictures):
    cache = cached(backbone, pictures, [2, 5, 0])
    keys, lengths = cache.keys.clone(), cache.lengths.clone()
    score(backbone, cache, torch.tensor([2, 0]), torch.tensor([[1], [3]]))
    assert torch.equal(cache.keys, keys)
    assert torch.equal(cache.lengths, lengths)


def test_scores_depend_on_the_tokens_and_on_the_condition(backbone, pictures):
    condition, token_ids, positions = pictures
    before = score(backbone, cached(backbone, pictures, [4] * 3), torch.arange(3), positions)
    other_tokens = (condition, (token_ids + 1) % 17, positions)
    other_text = (Condition((condition.ids + 1) % 11, condition.lengths), token_ids, positions)
    for changed in (other_tokens, other_text):
        after = score(backbone, cached(backbone, changed, [4] * 3), torch.arange(3), positions)
        assert (after - before).abs().max() > 1e-2


def test_a_query_of_no_positions_commits_alone(backbone, pictures):
    _, token_ids, positions = pictures
    slots, counts = torch.arange(3), torch.tensor([2, 1, 2])
    at_once, apart = (cached(backbone, pictures, [1, 1, 1]) for _ in range(2))
    commit = Commit(token_ids[:, 1:3], positions[:, 1:3], counts)
    query = positions[:, 5:]
    whole = backbone.step(at_once, slots, commit, Query.grid(query))
    assert backbone.step(apart, slots, commit, Query.grid(query[:, :0])).shape == (0, 17)
    nothing = Commit(token_ids[:, :0], positions[:, :0], torch.zeros(3, dtype=torch.long))
    torch.testing.assert_close(backbone.step(apart, slots, nothing, Query.grid(query)), whole, rtol=1e-4, atol=1e-4)


def test_a_backbone_without_a_policy_keeps_its_state_names(backbone):
    plain = OarBackbone(CONFIG)
    assert not plain.has_policy
    assert set(backbone.state_dict()) - set(plain.state_dict()) == {
        f"policy.{name}" for name in backbone.policy.state_dict()
    }


def test_the_default_policy_is_a_small_part_of_the_default_backbone():
    with torch.device("meta"):
        policy = OrderPolicy(OrderPolicyConfig(), BackboneConfig())
        backbone = OarBackbone(BackboneConfig())
    assert sum(parameter.numel() for parameter in policy.parameters()) < 0.02 * sum(
        weight.numel() for weight in backbone.parameters()
    )


def test_scores_in_half_precision_are_in_fp32(backbone, pictures):
    # Not an untrained one: there the queries are alike but for their rotation, which half precision may round away.
    half = copy.deepcopy(backbone).to(torch.bfloat16)
    scores = score(half, cached(half, pictures, [3] * 3), torch.arange(3), pictures[2])
    assert scores.dtype == torch.float32
    assert all(len(row.unique()) == LENGTH for row in scores)
    assert not torch.equal(scores, scores.bfloat16().float()), "the scores were rounded on their way"


@pytest.mark.parametrize("values", [{"width": 0}, {"num_layers": 0}])
def test_an_impossible_policy_is_refused(values):
    with pytest.raises(ConfigError):
        OrderPolicyConfig(**values)
