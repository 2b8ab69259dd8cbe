import math
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from oar_core.nn.segments import Layout, RowSpan, SegmentCost, divide, segment_cost

rows = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 20), st.integers(1, 99)), max_size=12).map(
    lambda steps: [
        RowSpan(slot, slot + 1, width, extent)
        for slot, (_, width, extent) in zip(np.cumsum([gap for gap, _, _ in steps]).tolist(), steps)
    ]
)
costs = st.builds(SegmentCost, width=st.just(32), call=st.sampled_from([0.0, 1e3, 1e5, math.inf]))


@given(rows, costs)
def test_ranges_hold_every_row_that_asks_and_do_not_overlap(rows, cost):
    ranges = divide(rows, cost)
    for before, after in pairwise(ranges):
        assert before.last <= after.first
    for row in rows:
        holders = [span for span in ranges if span.first <= row.first < span.last]
        assert len(holders) == (1 if row.width else len(holders))
        assert all(span.width >= row.width and span.extent >= row.extent for span in holders if row.width)


@given(rows, costs)
def test_dividing_never_costs_more_than_every_row_alone(rows, cost):
    alone = sum(cost.of(row) for row in rows if row.width)
    assert sum(map(cost.of, divide(rows, cost))) <= alone


def test_rows_that_are_alike_share_a_range_and_one_that_differs_much_does_not():
    cost = segment_cost(256, "cpu")
    narrow = [RowSpan(slot, slot + 1, 1, 90) for slot in range(20)]
    wide = RowSpan(20, 21, 30, 90)
    assert divide(narrow, cost) == [RowSpan(0, 20, 1, 90)]
    assert divide([*narrow, wide], cost) == [RowSpan(0, 20, 1, 90), wide]


def test_a_small_gap_is_read_over_and_a_wide_one_is_not():
    cost = segment_cost(256, "cpu")
    one, near, far = (RowSpan(slot, slot + 1, 2, 60) for slot in (0, 2, 60))
    assert divide([one, near, far], cost) == [RowSpan(0, 3, 2, 60), far]


def test_where_a_call_costs_more_than_any_pad_there_is_one_range():
    rows = [RowSpan(slot, slot + 1, 1 + slot, 90) for slot in range(0, 40, 7)]
    assert divide(rows, segment_cost(256, "cuda")) == [RowSpan(0, 36, 36, 90)]


def test_the_grids_hold_each_token_once():
    layout = Layout.of(np.array([5, 0, 1]), np.array([2, 3, 1]), np.array([9, 4, 4]), SegmentCost(8, math.inf))
    assert layout.sources[layout.places].tolist() == list(range(6))
    assert layout.places.tolist() == [15, 16, 0, 1, 2, 3]
    assert layout.num_pads == 6 * 3 - 6
    assert not layout.is_list
