"""The network over groups of tokens: cached decoding gives what one pass over everything gives."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from oar_core.detail_config import DetailBackboneConfig, TokenGroups
from oar_core.models.base import Commit, Condition, Query
from oar_core.models.detailflow.backbone import DetailBackbone
from oar_core.models.detailflow.entry_layout import EntryLayout
from tests.models.detailflow.tiny import BACKBONE, NUM_CODES, backbone

CPU = torch.device("cpu")
CONFIGS = {
    "first group token by token": BACKBONE,
    "first group at once": replace(BACKBONE, has_causal_first=False),
    "one token a step": replace(BACKBONE, group_size=1),
    "one group": replace(BACKBONE, group_size=16),
    "classes": replace(BACKBONE, max_condition=1),
}


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS)
def network(request) -> DetailBackbone:
    return backbone(request.param)


def prefixes_of(network: DetailBackbone) -> list[tuple[int, ...]]:
    most = network.config.max_condition
    return [(3,), (5, 1, 2)[:most], (7, 8, 9, 10, 11)[:most]]


def commit_of(token_ids: Tensor, spans: list[tuple[int, int]]) -> Commit:
    """Of each row the tokens of a span; pads are a token of their own."""
    width = max(end - start for start, end in spans)
    ids, positions = torch.ones(len(spans), width, dtype=torch.long), torch.zeros(len(spans), width, dtype=torch.long)
    for row, (start, end) in enumerate(spans):
        ids[row, : end - start] = token_ids[row, start:end]
        positions[row, : end - start] = torch.arange(start, end)
    return Commit(ids, positions, torch.tensor([end - start for start, end in spans]))


def trained(network: DetailBackbone, prefixes: list[tuple[int, ...]], token_ids: Tensor) -> Tensor:
    positions = torch.arange(token_ids.shape[1]).expand_as(token_ids)
    with torch.no_grad():
        return network(Condition.stack(prefixes, CPU), token_ids, positions)


def tokens_of(network: DetailBackbone, count: int) -> Tensor:
    return torch.randint(NUM_CODES, (count, network.config.num_tokens), generator=torch.Generator().manual_seed(9))


def test_cached_decoding_is_the_pass_over_everything(network: DetailBackbone) -> None:
    prefixes = prefixes_of(network)
    token_ids, slots = tokens_of(network, 3), torch.tensor([0, 2, 3])
    wanted, cache, start = trained(network, prefixes, token_ids), network.new_cache(4), 0
    nothing = commit_of(token_ids, [(0, 0)] * 3)
    network.prefill(cache, slots, Condition.stack(prefixes, CPU), nothing)
    commit = nothing
    for size, end in zip(network.config.groups.sizes, network.config.groups.ends):
        logits = network.step(cache, slots, commit, Query.grid(torch.arange(start, end).expand(3, -1)))
        assert (logits.view(3, size, -1) - wanted[:, start:end]).abs().max() <= 1e-5
        commit = commit_of(token_ids, [(start, end)] * 3)
        start = end


def test_rows_at_different_steps_share_a_step_and_prefills_take_in_any_number_of_groups(
    network: DetailBackbone,
) -> None:
    prefixes, groups = prefixes_of(network), network.config.groups
    token_ids, slots = tokens_of(network, 3), torch.tensor([0, 1, 2])
    wanted, starts = trained(network, prefixes, token_ids), (0, *groups.ends)
    for first in range(len(groups.sizes)):
        at = [first, 0, (first + 2) % len(groups.sizes)]
        cache = network.new_cache(3)
        known = commit_of(token_ids, [(0, starts[step]) for step in at])
        network.prefill(cache, slots, Condition.stack(prefixes, CPU), known)
        spans = [(starts[step], starts[step + 1]) for step in at]
        positions = torch.cat([torch.arange(*span) for span in spans])
        counts = tuple(end - start for start, end in spans)
        logits = network.step(cache, slots, commit_of(token_ids, [(0, 0)] * 3), Query(positions, counts))
        told = torch.cat([wanted[row, start:end] for row, (start, end) in enumerate(spans)])
        assert (logits - told).abs().max() <= 1e-5
        # And on: a row that has come to its last group takes no part.
        going = [row for row, step in enumerate(at) if step + 1 < len(groups.sizes)]
        if going:
            following = [(starts[at[row] + 1], starts[at[row] + 2]) for row in going]
            commit = commit_of(token_ids[going], [spans[row] for row in going])
            asked = torch.cat([torch.arange(*span) for span in following])
            counts = tuple(end - start for start, end in following)
            logits = network.step(cache, slots[going], commit, Query(asked, counts))
            told = torch.cat([wanted[row, start:end] for row, (start, end) in zip(going, following)])
            assert (logits - told).abs().max() <= 1e-5


def test_a_slot_remembers_nothing_of_who_had_it_and_survives_that_others_are_added(network: DetailBackbone) -> None:
    prefixes, token_ids = prefixes_of(network)[1:2], tokens_of(network, 1)
    end = network.config.groups.ends[0]
    cache, slots = network.new_cache(1), torch.tensor([0])
    for prefix in ((2,), prefixes[0]):
        network.prefill(cache, slots, Condition.stack([prefix], CPU), commit_of(token_ids, [(0, end)]))
    cache.grow(3)
    if len(network.config.groups.sizes) == 1:
        return
    following = network.config.groups.ends[1]
    logits = network.step(
        cache, slots, commit_of(token_ids, [(0, 0)]), Query(torch.arange(end, following), (following - end,))
    )
    assert (logits - trained(network, prefixes, token_ids)[0, end:following]).abs().max() <= 1e-5


def test_a_token_is_foretold_from_the_groups_before_alone(network: DetailBackbone) -> None:
    prefixes, groups = prefixes_of(network)[:1], network.config.groups
    token_ids = tokens_of(network, 1)
    before = trained(network, prefixes, token_ids)
    starts = [end - size for end, size in zip(groups.ends, groups.sizes) for _ in range(size)]
    for changed in range(groups.num_tokens):
        other = token_ids.clone()
        other[0, changed] = (other[0, changed] + 1) % NUM_CODES
        differs = (trained(network, prefixes, other) - before).abs().amax(dim=(0, 2)) > 1e-6
        assert differs.tolist() == [start > changed for start in starts]


def test_a_condition_is_told_from_its_pads_and_from_others(network: DetailBackbone) -> None:
    prefixes, token_ids = prefixes_of(network), tokens_of(network, 3)
    together = trained(network, prefixes, token_ids)
    for row, prefix in enumerate(prefixes):
        alone = trained(network, [prefix], token_ids[row : row + 1])
        assert (alone[0] - together[row]).abs().max() <= 1e-5
        assert (trained(network, [(0,)], token_ids[row : row + 1])[0] - alone[0]).abs().max() > 1e-3


def test_entries_of_a_tiny_sequence_are_as_written_out() -> None:
    """Groups of 2 of 6 tokens: [c c] [a] [b *] [c d], of which the last row is e f, which nothing reads."""
    added = EntryLayout(TokenGroups(6, 2)).added(*(torch.tensor([n]).numpy() for n in (2, 0, 4)))
    assert added.counts.tolist() == [7]
    assert added.entries.tolist() == [-1, -1, 1, 2, 3, 4, 5]
    assert added.seen.tolist() == [2, 2, 3, 5, 5, 7, 7]
    assert EntryLayout(TokenGroups(6, 2)).is_pad(added.entries).tolist() == [False] * 4 + [True] + [False] * 2
    together = EntryLayout(TokenGroups(6, 2, has_causal_first=False)).added(
        *(torch.tensor([n]).numpy() for n in (1, 0, 2))
    )
    assert together.entries.tolist() == [-1, 1, 2, 3]
    assert together.seen.tolist() == [2, 2, 4, 4]


def test_the_angles_are_those_of_the_group_and_the_place_that_is_foretold() -> None:
    network = backbone(BACKBONE)
    assert network.rotary.nowhere == (16 // 4 + 1) * 4
    foretells, angles = network._foretold(*(torch.tensor(n).numpy() for n in ([-1, -1, 1, 2], [4], [2])))
    assert foretells.tolist() == [-1, 0, 1, 2]
    assert angles.tolist() == [network.rotary.nowhere, 0, 1, 2]


def test_a_config_is_read_back() -> None:
    assert DetailBackboneConfig.from_dict(BACKBONE.to_dict()) == BACKBONE
