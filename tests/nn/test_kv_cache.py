import pytest
import torch

from oar_core.nn.kv_cache import KVCache


def make_cache(num_slots: int = 3, capacity: int = 5) -> KVCache:
    return KVCache.allocate(
        num_layers=2,
        num_slots=num_slots,
        num_heads=2,
        capacity=capacity,
        head_width=4,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )


def entries(batch: int, width: int, start: float = 1.0) -> torch.Tensor:
    """Entry j of row b is full of `start + 10 b + j`."""
    marks = start + 10 * torch.arange(batch)[:, None] + torch.arange(width)
    return marks[:, :, None, None].expand(batch, width, 2, 4).float()


def marks(read: torch.Tensor) -> list[list[float]]:
    return read[:, 0, :, 0].tolist()


@pytest.mark.parametrize("slots", [[0, 1], [2, 0]], ids=["contiguous", "gathered"])
def test_entries_of_a_row_are_compact_whatever_its_pads(slots):
    cache, rows = make_cache(), torch.tensor(slots)
    window = cache.extend(rows, torch.tensor([[True, False, True], [False, True, False]]))
    new = entries(2, 3)
    keys, values = window.update(1, new, -new)
    assert marks(keys) == [[1, 3], [12, 0]]
    assert marks(values) == [[-1, -3], [-12, 0]]
    again = cache.extend(rows, torch.ones(2, 1, dtype=torch.bool))
    keys, _ = again.update(1, entries(2, 1, start=7), entries(2, 1))
    assert marks(keys) == [[1, 3, 7], [12, 17, 0]]
    assert cache.lengths[rows].tolist() == [3, 2]


def test_a_contiguous_range_is_read_without_a_copy():
    cache = make_cache()
    keys, _ = cache.extend(torch.tensor([1, 2]), torch.ones(2, 2, dtype=torch.bool)).read(0)
    assert keys.data_ptr() == cache.keys[0, 1].data_ptr()


def test_other_layers_and_slots_stay_untouched():
    cache = make_cache()
    cache.extend(torch.tensor([1]), torch.ones(1, 2, dtype=torch.bool)).update(0, entries(1, 2), entries(1, 2))
    assert not cache.keys[1].any()
    assert not cache.keys[0, [0, 2]].any()


def test_a_limit_is_a_prefix_of_the_row():
    window = make_cache().extend(torch.tensor([0, 1]), torch.ones(2, 3, dtype=torch.bool))
    visible = window.visible(torch.tensor([[1, 3], [2, 2]]))
    assert visible.shape == (2, 1, 2, 3)
    assert visible.sum(dim=-1).tolist() == [[[1, 3]], [[2, 2]]]


def test_reset_empties_its_slots_alone():
    cache = make_cache()
    rows = torch.tensor([0, 1, 2])
    cache.extend(rows, torch.ones(3, 2, dtype=torch.bool)).update(0, entries(3, 2), entries(3, 2))
    cache.keys[:, 1] = float("nan")
    cache.reset(torch.tensor([1]))
    assert cache.lengths.tolist() == [2, 0, 2]
    assert not cache.keys[:, 1].any()
    assert cache.keys[0, [0, 2], :, :2].all()


def test_a_row_beyond_its_capacity_is_our_own_mistake():
    cache = make_cache(capacity=2)
    with pytest.raises(AssertionError, match="3 entries in a slot of 2"):
        cache.extend(torch.tensor([0]), torch.ones(1, 3, dtype=torch.bool))
