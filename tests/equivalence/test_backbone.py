"""The native backbone gives the same logits however its work is divided: cached, batched, padded, grouped."""

from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float
from torch import Tensor

from oar_core.config import BackboneConfig
from oar_core.models.base import Commit, Condition, Query
from oar_core.models.oar.backbone import OarBackbone
from oar_core.nn.kv_cache import KVCache

CONFIG = BackboneConfig(
    grid=(3, 4),
    vocab_size=17,
    condition_vocab=11,
    max_condition=5,
    width=32,
    num_heads=2,
    num_context_layers=2,
    num_query_layers=2,
)
TOLERANCE = {"rtol": 1e-3, "atol": 1e-4}


def make_backbone(config: BackboneConfig = CONFIG) -> OarBackbone:
    """A backbone whose weights are large enough that a wrong mask or angle shows in the logits."""
    torch.manual_seed(0)
    backbone = OarBackbone(config).eval()
    for parameter in backbone.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return backbone


BACKBONE = make_backbone()


class Pictures:
    """A batch of conditions of different lengths, orders and tokens, in decode order."""

    def __init__(self, batch: int, seed: int, config: BackboneConfig = CONFIG) -> None:
        generator = torch.Generator().manual_seed(seed)
        length = config.num_tokens
        self.batch, self.length = batch, length
        lengths = torch.randint(1, config.max_condition + 1, (batch,), generator=generator)
        ids = torch.randint(config.condition_vocab, (batch, config.max_condition), generator=generator)
        self.condition = Condition(ids, lengths)
        self.positions = torch.stack([torch.randperm(length, generator=generator) for _ in range(batch)])
        self.token_ids = torch.randint(config.vocab_size, (batch, length), generator=generator)

    def row(self, row: int) -> "Pictures":
        """One picture alone, its condition without pads."""
        alone = object.__new__(Pictures)
        alone.batch, alone.length = 1, self.length
        size = int(self.condition.lengths[row])
        alone.condition = Condition(self.condition.ids[row : row + 1, :size], self.condition.lengths[row : row + 1])
        alone.positions, alone.token_ids = self.positions[row : row + 1], self.token_ids[row : row + 1]
        return alone

    def commit(self, starts: list[int], stops: list[int], width: int | None = None) -> Commit:
        """Tokens of ranks `starts[b]..stops[b]`, padded with token 1 at position 2."""
        counts = [stop - start for start, stop in zip(starts, stops)]
        width = max(counts) if width is None else width
        token_ids = torch.ones(self.batch, width, dtype=torch.long)
        positions = torch.full((self.batch, width), 2)
        for b, (start, stop) in enumerate(zip(starts, stops)):
            token_ids[b, : stop - start] = self.token_ids[b, start:stop]
            positions[b, : stop - start] = self.positions[b, start:stop]
        return Commit(token_ids, positions, torch.tensor(counts))


@torch.no_grad()
def train_logits(pictures: Pictures, bounds: list[list[int]], backbone: OarBackbone = BACKBONE) -> Tensor:
    """What the training pass says of the positions that a decode by `bounds` asks for: the oracle.

    A group's positions share the context before it, so each becomes the next in an order of its own.
    """
    logits = torch.full((pictures.batch, pictures.length, backbone.spec.vocab_size), float("nan"))
    for starts, stops in pairwise(bounds):
        for b, (start, stop) in enumerate(zip(starts, stops)):
            for rank in range(start, stop):
                positions = pictures.positions[b : b + 1].clone()
                positions[0, start] = pictures.positions[b, rank]
                condition = Condition(pictures.condition.ids[b : b + 1], pictures.condition.lengths[b : b + 1])
                logits[b, rank] = backbone(condition, pictures.token_ids[b : b + 1], positions)[0, start]
    return logits


def ask(backbone: OarBackbone, cache: KVCache, slots: Tensor, commit: Commit, query: Tensor) -> Tensor:
    """Logits of a table of queries, (B, G, V)."""
    return backbone.step(cache, slots, commit, Query.grid(query)).unflatten(0, query.shape)


@torch.no_grad()
def decode_logits(
    pictures: Pictures,
    bounds: list[list[int]],
    *,
    backbone: OarBackbone = BACKBONE,
    cache: KVCache | None = None,
    slots: Tensor | None = None,
    spare: int = 0,
) -> Float[Tensor, "B L V"]:
    """Logits of the cached path. `bounds[t][b]` tokens of row b are known before step t, which asks for those up to
    `bounds[t + 1][b]`; the tokens of `bounds[0]` come with the prefill. `spare` pads each commit and query further."""
    slots = torch.arange(pictures.batch) if slots is None else slots
    cache = backbone.new_cache(pictures.batch) if cache is None else cache
    zeros = [0] * pictures.batch
    logits = torch.full((pictures.batch, pictures.length, backbone.spec.vocab_size), float("nan"))
    backbone.prefill(cache, slots, pictures.condition, pictures.commit(zeros, bounds[0]))
    for step, (starts, stops) in enumerate(pairwise(bounds)):
        before = bounds[step - 1] if step else starts
        width = max(stop - start for start, stop in zip(before, starts)) + spare
        query = pictures.commit(starts, stops, max(1, *(b - a for a, b in zip(starts, stops))) + spare)
        answer = ask(backbone, cache, slots, pictures.commit(before, starts, width), query.positions)
        for b, (start, stop) in enumerate(zip(starts, stops)):
            logits[b, start:stop] = answer[b, : stop - start]
    return logits


def assert_decodes_as_trained(pictures: Pictures, bounds: list[list[int]], **options: object) -> None:
    expected = train_logits(pictures, bounds)
    decoded = decode_logits(pictures, bounds, **options)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(decoded, expected, equal_nan=True, **TOLERANCE)


@st.composite
def groupings(draw: st.DrawFn, batch: int, length: int = CONFIG.num_tokens) -> list[list[int]]:
    """Per row: known tokens, then steps that each fill some (maybe no) positions, until every position is filled."""
    num_steps = draw(st.integers(1, 6))
    rows = [
        sorted(draw(st.lists(st.integers(0, length), min_size=num_steps, max_size=num_steps))) for _ in range(batch)
    ]
    return [[row[step] for row in rows] for step in range(num_steps)] + [[length] * batch]


@settings(max_examples=40, deadline=None)
@given(data=st.data(), batch=st.integers(1, 3), seed=st.integers(0, 10_000), spare=st.integers(0, 2))
def test_cached_equals_uncached_under_any_grouping_and_order(data, batch, seed, spare):
    bounds = data.draw(groupings(batch))
    assert_decodes_as_trained(Pictures(batch, seed), bounds, spare=spare)


ONE_BY_ONE = [[rank] * 3 for rank in range(CONFIG.num_tokens + 1)]
IN_GROUPS = [[0, 2, 5], [1, 2, 6], [4, 6, 6], [12, 12, 12]]


def test_training_logits_are_those_of_decoding_one_by_one():
    pictures = Pictures(3, seed=1)
    with torch.no_grad():
        trained = BACKBONE(pictures.condition, pictures.token_ids, pictures.positions)
    torch.testing.assert_close(decode_logits(pictures, ONE_BY_ONE), trained, **TOLERANCE)


def test_a_square_grid_decodes_as_trained_too():
    config = BackboneConfig(**{**CONFIG.to_dict(), "grid": (3, 3)})
    backbone, pictures = make_backbone(config), Pictures(2, seed=2, config=config)
    bounds = [[0, 1], [3, 2], [9, 9]]
    decoded = decode_logits(pictures, bounds, backbone=backbone)
    torch.testing.assert_close(decoded, train_logits(pictures, bounds, backbone), equal_nan=True, **TOLERANCE)


def test_a_row_of_a_batch_decodes_as_alone():
    pictures = Pictures(3, seed=3)
    together = decode_logits(pictures, IN_GROUPS)
    for row in range(3):
        alone = decode_logits(pictures.row(row), [[bounds[row]] for bounds in IN_GROUPS])
        torch.testing.assert_close(alone[0], together[row], equal_nan=True, **TOLERANCE)


def test_a_row_of_a_batch_trains_as_alone_without_condition_pads():
    pictures = Pictures(3, seed=4)
    with torch.no_grad():
        together = BACKBONE(pictures.condition, pictures.token_ids, pictures.positions)
        for row in range(3):
            alone = pictures.row(row)
            logits = BACKBONE(alone.condition, alone.token_ids, alone.positions)
            torch.testing.assert_close(logits[0], together[row], **TOLERANCE)


def test_pads_of_commits_and_queries_change_nothing():
    pictures = Pictures(3, seed=5)
    padded, plain = (decode_logits(pictures, IN_GROUPS, spare=spare) for spare in (3, 0))
    torch.testing.assert_close(padded, plain, equal_nan=True, **TOLERANCE)


def test_contents_of_condition_pads_change_nothing():
    pictures = Pictures(3, seed=6)
    plain = decode_logits(pictures, IN_GROUPS), train_logits(pictures, IN_GROUPS)
    pads = torch.arange(CONFIG.max_condition) >= pictures.condition.lengths[:, None]
    assert pads.any()
    pictures.condition = Condition(pictures.condition.ids.masked_fill(pads, 0), pictures.condition.lengths)
    changed = decode_logits(pictures, IN_GROUPS), train_logits(pictures, IN_GROUPS)
    torch.testing.assert_close(changed, plain, equal_nan=True, rtol=0, atol=0)


def test_gathered_slots_decode_as_a_contiguous_view():
    pictures = Pictures(3, seed=7)
    viewed = decode_logits(pictures, IN_GROUPS, cache=BACKBONE.new_cache(6), slots=torch.tensor([2, 3, 4]))
    gathered = decode_logits(pictures, IN_GROUPS, cache=BACKBONE.new_cache(6), slots=torch.tensor([5, 0, 3]))
    torch.testing.assert_close(gathered, viewed, equal_nan=True, **TOLERANCE)


def test_other_slots_and_former_contents_are_never_read():
    pictures = Pictures(3, seed=8)
    for slots in ([2, 3, 4], [5, 0, 3]):
        poisoned = BACKBONE.new_cache(6)
        poisoned.keys.fill_(float("nan"))
        poisoned.values.fill_(float("nan"))
        decoded = decode_logits(pictures, IN_GROUPS, cache=poisoned, slots=torch.tensor(slots))
        torch.testing.assert_close(decoded, decode_logits(pictures, IN_GROUPS), equal_nan=True, **TOLERANCE)
        others = [slot for slot in range(6) if slot not in slots]
        assert poisoned.keys[:, others].isnan().all(), "another slot was written"


def test_a_slot_serves_the_next_sequence_as_a_fresh_one_does():
    cache = BACKBONE.new_cache(3)
    decode_logits(Pictures(3, seed=9), IN_GROUPS, cache=cache)
    pictures = Pictures(3, seed=10)
    again = decode_logits(pictures, IN_GROUPS, cache=cache)
    torch.testing.assert_close(again, decode_logits(pictures, IN_GROUPS), equal_nan=True, **TOLERANCE)


def test_sequences_that_join_later_do_not_change_those_that_run():
    first, second = Pictures(1, seed=11), Pictures(1, seed=12)
    cache, slots = BACKBONE.new_cache(2), torch.tensor([1, 0])
    BACKBONE.prefill(cache, slots[:1], first.condition, first.commit([0], [3]))
    BACKBONE.prefill(cache, slots[1:], second.condition, second.commit([0], [0]))
    both = Pictures(2, seed=0)
    both.positions = torch.cat([first.positions, second.positions])
    both.token_ids = torch.cat([first.token_ids, second.token_ids])
    answer = ask(BACKBONE, cache, slots, both.commit([3, 0], [5, 1]), both.commit([5, 1], [9, 5]).positions)
    for row, pictures, bounds in ((0, first, [[5], [9]]), (1, second, [[1], [5]])):
        expected = train_logits(pictures, bounds)[0, bounds[0][0] : bounds[1][0]]
        torch.testing.assert_close(answer[row], expected, **TOLERANCE)


def test_a_query_does_not_depend_on_the_other_queries():
    pictures = Pictures(2, seed=13)
    cache, slots = BACKBONE.new_cache(2), torch.arange(2)
    BACKBONE.prefill(cache, slots, pictures.condition, pictures.commit([0, 0], [4, 4]))
    nothing = pictures.commit([4, 4], [4, 4])
    together = ask(BACKBONE, cache, slots, nothing, pictures.positions)
    for rank in range(pictures.length):
        alone = ask(BACKBONE, cache, slots, nothing, pictures.positions[:, rank : rank + 1])
        torch.testing.assert_close(alone[:, 0], together[:, rank], **TOLERANCE)


def test_a_step_may_ask_nothing():
    pictures = Pictures(2, seed=14)
    cache, slots = BACKBONE.new_cache(2), torch.arange(2)
    BACKBONE.prefill(cache, slots, pictures.condition, pictures.commit([0, 0], [0, 0]))
    no_query = torch.empty(2, 0, dtype=torch.long)
    assert ask(BACKBONE, cache, slots, pictures.commit([0, 0], [3, 2]), no_query).shape == (2, 0, CONFIG.vocab_size)
    assert (cache.lengths == pictures.condition.lengths + torch.tensor([3, 2])).all()


def test_bfloat16_weights_decode_close_to_float32():
    pictures = Pictures(3, seed=15)
    torch.manual_seed(0)
    backbone = OarBackbone(CONFIG).eval()
    exact = decode_logits(pictures, ONE_BY_ONE, backbone=backbone)
    rounded = decode_logits(pictures, ONE_BY_ONE, backbone=backbone.to(torch.bfloat16))
    assert (rounded - exact).norm() < 0.03 * exact.norm()


def test_decoding_under_autocast_stays_close_to_float32():
    pictures = Pictures(3, seed=16)
    torch.manual_seed(0)
    backbone = OarBackbone(CONFIG).eval()
    exact = decode_logits(pictures, ONE_BY_ONE, backbone=backbone)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = decode_logits(pictures, ONE_BY_ONE, backbone=backbone)
    assert (rounded - exact).norm() < 0.03 * exact.norm()
