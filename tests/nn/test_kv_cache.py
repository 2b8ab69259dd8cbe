import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oar_core.nn.attention import additive_mask, attend
from oar_core.nn.kv_cache import KVCache

HEADS, WIDTH = 2, 4


def make_cache(num_slots: int = 3, capacity: int = 5) -> KVCache:
    return KVCache.allocate(
        num_layers=2,
        num_slots=num_slots,
        num_heads=HEADS,
        capacity=capacity,
        head_width=WIDTH,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )


def entries(*marks: float) -> torch.Tensor:
    """One entry a mark, full of it."""
    return torch.tensor(marks)[:, None, None].expand(-1, HEADS, WIDTH)


def marks(cache: KVCache, slot: int, layer: int = 0) -> list[float]:
    return cache.keys[layer, slot, 0, :, 0].tolist()


def test_entries_of_a_row_are_compact_whatever_the_order_of_the_slots():
    cache, slots = make_cache(), torch.tensor([2, 0])
    cache.extend(slots, (2, 1)).write(0, entries(1, 2, 3), -entries(1, 2, 3))
    cache.extend(slots, (1, 0)).write(0, entries(4), -entries(4))
    assert marks(cache, 2) == [1, 2, 4, 0, 0]
    assert marks(cache, 0) == [3, 0, 0, 0, 0]
    assert torch.equal(cache.values[0], -cache.keys[0])
    assert cache.lengths.tolist() == [1, 0, 3]


def test_other_layers_and_slots_stay_untouched():
    cache = make_cache()
    cache.extend(torch.tensor([1]), (2,)).write(0, entries(1, 2), entries(1, 2))
    assert not cache.keys[1].any()
    assert not cache.keys[0, [0, 2]].any()


def test_reset_empties_its_slots_alone():
    cache = make_cache()
    cache.extend(torch.tensor([0, 1, 2]), (2, 2, 2)).write(0, entries(*range(1, 7)), entries(*range(1, 7)))
    cache.keys[:, 1] = float("nan")
    cache.reset(torch.tensor([1]))
    assert cache.lengths.tolist() == [2, 0, 2]
    assert not cache.keys[:, 1].any()
    assert cache.keys[0, [0, 2], :, :2].all()


def test_a_row_beyond_its_capacity_is_our_own_mistake():
    cache = make_cache(capacity=2)
    with pytest.raises(AssertionError, match="3 entries in a slot of 2"):
        cache.extend(torch.tensor([0]), (3,))


def test_queries_that_fill_neighbouring_slots_are_read_where_they_lie():
    """Keys and values are views of the cache, and the queries' list is their grid: nothing is copied."""
    cache = make_cache()
    cache.extend(torch.tensor([1, 2]), (2, 2)).write(0, entries(1, 2, 3, 4), entries(1, 2, 3, 4))
    window = cache.look(torch.tensor([1, 2]), (3, 3))
    assert window.layout.is_list
    assert [tuple(segment) for segment in window.layout.segments] == [(1, 3, 3, 2)]


@settings(max_examples=60, deadline=None)
@given(
    slots=st.permutations(range(6)),
    lengths=st.lists(st.integers(1, 9), min_size=6, max_size=6),
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=6).filter(any),
    seed=st.integers(0, 1000),
)
def test_each_query_attends_to_its_own_row_alone_wherever_the_rows_lie(slots, lengths, counts, seed):
    torch.manual_seed(seed)
    cache = make_cache(6, capacity=9)
    cache.extend(torch.arange(6), lengths)
    cache.keys.normal_()
    cache.values.normal_()
    rows = slots[: len(counts)]
    window = cache.look(torch.tensor(rows), counts)
    queries = torch.randn(sum(counts), HEADS, WIDTH)
    attended = window.read(1, queries)
    start = 0
    for slot, count in zip(rows, counts):
        seen = [table[1, slot : slot + 1, :, : lengths[slot]] for table in (cache.keys, cache.values)]
        alone = attend(queries[None, start : start + count], *seen, None)[0]
        torch.testing.assert_close(attended[start : start + count], alone)
        start += count


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 4), min_size=1, max_size=4).filter(any),
    mutual=st.lists(st.integers(0, 3), min_size=4, max_size=4),
    seed=st.integers(0, 1000),
)
def test_a_new_token_sees_what_was_before_itself_and_its_condition(counts, mutual, seed):
    torch.manual_seed(seed)
    cache = make_cache(4, capacity=6)
    cache.keys.normal_()
    cache.values.normal_()
    cache.extend(torch.arange(4), (1, 0, 2, 1))
    before = cache.lengths.tolist()
    rows = torch.arange(len(counts)).flip(0)
    mutual = [min(count, wanted) for count, wanted in zip(counts, mutual)]
    seen = [max(offset + 1, together) for count, together in zip(counts, mutual) for offset in range(count)]
    window = cache.extend(rows, counts, np.array(seen))
    queries, keys, values = torch.randn(3, sum(counts), HEADS, WIDTH)
    attended = window.attend(0, queries, keys, values)
    token = 0
    for slot, count, together in zip(rows.tolist(), counts, mutual):
        for offset in range(count):
            seen = before[slot] + max(offset + 1, together)
            part = [table[0, slot : slot + 1, :, :seen] for table in (cache.keys, cache.values)]
            torch.testing.assert_close(attended[token], attend(queries[None, None, token], *part, None)[0, 0])
            token += 1


def test_a_mask_is_none_where_all_is_seen():
    queries, keys = torch.randn(2, 3, HEADS, WIDTH), torch.randn(2, HEADS, 5, WIDTH)
    everything = additive_mask(torch.ones(2, 1, 3, 5, dtype=torch.bool), torch.float32)
    torch.testing.assert_close(attend(queries, keys, keys, None), attend(queries, keys, keys, everything))


def test_a_cache_that_grows_keeps_what_its_slots_hold():
    cache = make_cache(num_slots=2)
    window = cache.extend(torch.tensor([0, 1]), [1, 2])
    window.write(0, entries(1, 2, 3), entries(4, 5, 6))
    before = [marks(cache, slot) for slot in range(2)]
    cache.grow(5)
    assert (cache.num_slots, cache.lengths.tolist()) == (5, [1, 2, 0, 0, 0])
    assert [marks(cache, slot) for slot in range(2)] == before == [[1, 0, 0, 0, 0], [2, 3, 0, 0, 0]]
    cache.extend(torch.tensor([4]), [1]).write(0, entries(7), entries(8))
    assert marks(cache, 4) == [7, 0, 0, 0, 0]
