import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from oar_core.config import BackboneConfig
from oar_core.models.base import Backbone, Commit, Condition, Query
from oar_core.models.oar.backbone import OarBackbone

CONFIG = BackboneConfig(
    grid=(3, 4),
    vocab_size=16,
    condition_vocab=10,
    max_condition=4,
    width=32,
    num_heads=2,
    num_context_layers=2,
    num_query_layers=3,
)


def make_backbone(**changes: object) -> OarBackbone:
    torch.manual_seed(0)
    return OarBackbone(BackboneConfig(**{**CONFIG.to_dict(), **changes})).eval()


def make_batch(batch: int = 4, seed: int = 0) -> tuple[Condition, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(CONFIG.condition_vocab, (batch, CONFIG.max_condition), generator=generator)
    lengths = torch.randint(1, CONFIG.max_condition + 1, (batch,), generator=generator)
    positions = torch.stack([torch.randperm(CONFIG.num_tokens, generator=generator) for _ in range(batch)])
    token_ids = torch.randint(CONFIG.vocab_size, positions.shape, generator=generator)
    return Condition(ids, lengths), token_ids, positions


def commit_of(token_ids: Tensor, positions: Tensor) -> Commit:
    return Commit(token_ids, positions, torch.full((positions.shape[0],), positions.shape[1]))


def test_it_keeps_the_backbone_contract():
    backbone: Backbone = make_backbone()
    assert backbone.config == CONFIG


def test_the_default_size_is_what_the_config_promises():
    with torch.device("meta"):
        backbone = OarBackbone(BackboneConfig())
    assert sum(weight.numel() for weight in backbone.parameters()) == 9_685_760
    assert backbone.new_cache(3).keys.shape == (7, 3, 8, 48 + 64, 32)


def test_the_first_loss_is_that_of_a_uniform_guess():
    backbone, (condition, token_ids, positions) = make_backbone(), make_batch()
    logits = backbone(condition, token_ids, positions)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), token_ids.flatten())
    assert loss.item() == pytest.approx(torch.tensor(16.0).log().item(), abs=0.05)


def test_gradient_flows_to_every_parameter():
    backbone, (condition, token_ids, positions) = make_backbone(), make_batch()
    backbone(condition, token_ids, positions).square().sum().backward()
    dead = [name for name, weight in backbone.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert dead == []


def test_logits_depend_on_earlier_ranks_alone():
    backbone, (condition, token_ids, positions) = make_backbone(), make_batch()
    changed = token_ids.clone()
    changed[:, 5] = (changed[:, 5] + 1) % CONFIG.vocab_size
    with torch.no_grad():
        before = backbone(condition, token_ids, positions)
        after = backbone(condition, changed, positions)
    differs = (before != after).any(dim=-1)
    assert not differs[:, :6].any()
    assert differs[:, 6:].all()


def test_condition_tokens_see_each_other_both_ways_and_no_image_token():
    backbone, (condition, token_ids, positions) = make_backbone(), make_batch()
    whole = Condition(condition.ids, torch.full_like(condition.lengths, CONFIG.max_condition))
    other_end = Condition(whole.ids.clone(), whole.lengths)
    other_end.ids[:, -1] = (other_end.ids[:, -1] + 1) % CONFIG.condition_vocab
    memories = []
    for prefix, tokens in ((whole, token_ids), (other_end, token_ids), (whole, (token_ids + 1) % 16)):
        cache = backbone.new_cache(4)
        backbone.prefill(cache, torch.arange(4), prefix, commit_of(tokens, positions))
        memories.append(cache.keys[-1, :, :, : CONFIG.max_condition])
    first, changed_end, changed_image = memories
    assert (first[:, :, 0] != changed_end[:, :, 0]).any(dim=-1).all()
    torch.testing.assert_close(changed_image, first)


def test_the_position_table_tells_first_queries_apart():
    """Over a single condition token attention gives every position the same; only the table can tell them apart."""
    backbone, (condition, token_ids, positions) = make_backbone(), make_batch()
    single = Condition(condition.ids[:, :1], torch.ones_like(condition.lengths))
    cache, nothing = backbone.new_cache(4), commit_of(token_ids[:, :0], positions[:, :0])
    backbone.prefill(cache, torch.arange(4), single, nothing)
    blank = backbone.step(cache, torch.arange(4), nothing, Query.grid(positions)).unflatten(0, positions.shape)
    torch.testing.assert_close(blank, blank[:, :1].expand_as(blank))
    torch.nn.init.normal_(backbone.embed_query.position.weight)
    told_apart = backbone.step(cache, torch.arange(4), nothing, Query.grid(positions)).unflatten(0, positions.shape)
    assert (told_apart[:, 1:] - told_apart[:, :1]).abs().amax(dim=-1).min() > 1e-3


def test_bfloat16_autocast_stays_close_to_float32():
    backbone, batch = make_backbone(), make_batch()
    with torch.no_grad():
        exact = backbone(*batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = backbone(*batch)
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - exact).norm() < 0.02 * exact.norm()


def test_dropout_acts_in_training_only():
    backbone, batch = make_backbone(dropout=0.5), make_batch()
    with torch.no_grad():
        calm = backbone(*batch)
        assert torch.equal(calm, backbone(*batch))
        assert not torch.equal(calm, backbone.train()(*batch))


def test_state_dict_survives_safetensors():
    backbone, batch = make_backbone(), make_batch()
    torch.manual_seed(1)
    other = OarBackbone(CONFIG).eval()
    other.load_state_dict(load(save(backbone.state_dict())), strict=True)
    with torch.no_grad():
        assert torch.equal(other(*batch), backbone(*batch))
    assert set(backbone.state_dict()) == {name for name, _ in backbone.named_parameters()}


def test_cached_passes_keep_no_gradient():
    backbone, (condition, token_ids, positions) = make_backbone(), make_batch()
    cache, nothing = backbone.new_cache(4), commit_of(token_ids[:, :0], positions[:, :0])
    backbone.prefill(cache, torch.arange(4), condition, nothing)
    first, rest = commit_of(token_ids[:, :1], positions[:, :1]), Query.grid(positions[:, 1:])
    logits = backbone.step(cache, torch.arange(4), first, rest)
    assert not logits.requires_grad
    assert not cache.keys.requires_grad


def test_a_condition_without_tokens_is_refused():
    backbone, (condition, token_ids, positions) = make_backbone(), make_batch()
    empty = Condition(condition.ids, torch.tensor([1, 0, 2, 3]))
    with pytest.raises(AssertionError, match="at least one token"):
        backbone.prefill(backbone.new_cache(4), torch.arange(4), empty, commit_of(token_ids, positions))


def test_it_learns_a_batch_by_heart():
    backbone, (condition, token_ids, positions) = make_backbone().train(), make_batch()
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=1e-2)
    loss = torch.tensor(float("inf"))
    for _ in range(80):
        logits = backbone(condition, token_ids, positions)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), token_ids.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


def test_on_a_cpu_the_cache_is_in_fp32_whatever_the_weights_are():
    assert make_backbone().to(torch.bfloat16).new_cache(1).keys.dtype is torch.float32
