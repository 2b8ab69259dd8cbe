from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oar_core.errors import OrderError, StepsError
from oar_core.order.paths import random
from oar_core.order.plan import ORDERS, PROMPTED, SCHEDULES, PlanSpec, group_sizes, make_plan, shrink_sizes

lengths_and_steps = st.integers(1, 300).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n)))


@given(kind=st.sampled_from(SCHEDULES), sizes=lengths_and_steps)
def test_group_sizes_are_positive_never_shrink_and_sum_to_the_length(kind, sizes):
    length, steps = sizes
    groups = group_sizes(kind, steps, length)
    assert len(groups) == steps
    assert min(groups) >= 1
    assert sum(groups) == length
    assert all(earlier <= later for earlier, later in pairwise(groups))


@given(lengths_and_steps)
def test_constant_groups_differ_by_one_at_most(sizes):
    length, steps = sizes
    groups = group_sizes("constant", steps, length)
    assert max(groups) - min(groups) <= 1


def test_the_shapes_of_the_three_kinds():
    assert group_sizes("constant", 8, 64) == (8,) * 8
    assert group_sizes("linear", 8, 64) == (1, 3, 5, 7, 9, 11, 13, 15)
    assert group_sizes("cosine", 8, 64) == (1, 4, 6, 8, 9, 12, 12, 12)


@pytest.mark.parametrize(
    ("kind", "steps", "field"),
    [("quadratic", 4, "group_sizes"), ("cosine", 0, "steps"), ("cosine", 65, "steps")],
)
def test_impossible_group_sizes_name_the_field(kind, steps, field):
    with pytest.raises(StepsError) as error:
        group_sizes(kind, steps, 64)
    assert error.value.field == field


@pytest.mark.parametrize("order", ["zigzag", "", (0, 0, 1), (1, 2), (), (-1, 0)])
def test_an_order_that_is_none_is_refused(order):
    with pytest.raises(OrderError) as error:
        PlanSpec(order=order)
    assert error.value.field == "order"


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"steps": 0}, "steps"),
        ({"group_sizes": "huge"}, "group_sizes"),
        ({"entropy_bound": -1.0}, "entropy_bound"),
        ({"candidates": 0}, "candidates"),
        ({"group_sizes": ()}, "group_sizes"),
        ({"group_sizes": (4, 0)}, "group_sizes"),
        ({"group_sizes": (4, 4), "steps": 3}, "group_sizes"),
    ],
)
def test_impossible_steps_are_refused(values, field):
    with pytest.raises(StepsError) as error:
        PlanSpec(**values)
    assert error.value.field == field


def test_what_depends_on_the_grid_is_checked_when_the_plan_is_laid_out():
    with pytest.raises(OrderError, match="names 3 positions; this model has 4"):
        make_plan(PlanSpec(order=(0, 1, 2)), (2, 2), seed=0)
    with pytest.raises(StepsError, match="steps is 5; this model takes 1 to 4"):
        make_plan(PlanSpec(steps=5), (2, 2), seed=0)


@given(
    order=st.sampled_from([name for name in ORDERS if name != PROMPTED]),
    sizes=lengths_and_steps,
    kept=st.sets(st.integers(0, 299)),
)
def test_a_plan_covers_exactly_the_positions_that_were_not_given(order, sizes, kept):
    length, steps = sizes
    given_positions = {position for position in kept if position < length}
    remaining = length - len(given_positions)
    plan = make_plan(PlanSpec(order=order, steps=steps), (1, length), seed=1, given=given_positions)
    assert plan.length == remaining
    assert plan.steps == min(steps, remaining)
    assert plan.order is None or sorted(plan.order) == sorted(set(range(length)) - given_positions)


def test_a_fixed_order_is_filtered_and_not_made_anew():
    plan = make_plan(PlanSpec(order="random"), (4, 4), seed=9, image_index=2, given={3, 8})
    assert plan.order == tuple(position for position in random((4, 4), 9, 2) if position not in {3, 8})


def test_an_edit_in_locality_order_grows_from_what_is_given():
    plan = make_plan(PlanSpec(order="locality"), (1, 9), seed=2, given={6})
    assert plan.order is not None
    assert plan.order[0] in {5, 7}
    assert sorted(plan.order) == [0, 1, 2, 3, 4, 5, 7, 8]


def test_without_steps_every_position_is_a_step():
    assert make_plan(PlanSpec(), (4, 4), seed=0).group_ends == tuple(range(1, 17))
    assert make_plan(PlanSpec(), (4, 4), seed=0, given=range(10)).steps == 6


@given(sizes=lengths_and_steps)
def test_every_rank_lies_in_its_group(sizes):
    length, steps = sizes
    plan = make_plan(PlanSpec(steps=steps), (1, length), seed=0)
    groups = [plan.group_of(rank) for rank in range(length)]
    assert all(group.start <= rank < group.end for rank, group in enumerate(groups))
    assert [group.step for group in dict.fromkeys(groups)] == list(range(steps))


def test_an_adaptive_plan_has_the_ends_of_the_cosine_schedule_and_its_bound():
    adaptive = make_plan(PlanSpec(steps=5, group_sizes="adaptive", entropy_bound=1.5), (4, 4), seed=0)
    cosine = make_plan(PlanSpec(steps=5), (4, 4), seed=0)
    assert adaptive.group_ends == cosine.group_ends
    assert (adaptive.entropy_bound, cosine.entropy_bound) == (1.5, None)
    assert [make_plan(PlanSpec(), (1, n), seed=0).lookahead for n in (8, 64, 256)] == [16, 16, 64]


@given(kind=st.sampled_from(SCHEDULES), sizes=lengths_and_steps, kept=st.sets(st.integers(0, 299)))
def test_a_list_of_sizes_is_the_schedule_that_has_them(kind, sizes, kept):
    length, steps = sizes
    listed = PlanSpec(group_sizes=group_sizes(kind, steps, length))
    assert listed.steps == steps
    assert make_plan(listed, (1, length), seed=0) == make_plan(
        PlanSpec(steps=steps, group_sizes=kind), (1, length), seed=0
    )
    given_positions = {position for position in kept if position < length}
    edit = make_plan(listed, (1, length), seed=0, given=given_positions)
    assert edit.steps == min(steps, length - len(given_positions))
    assert edit.length == length - len(given_positions)
    assert all(earlier < later for earlier, later in pairwise((0, *edit.group_ends)))


def test_sizes_may_fall_and_an_edit_takes_the_same_shares():
    assert make_plan(PlanSpec(group_sizes=(10, 1, 5)), (4, 4), seed=0).group_ends == (10, 11, 16)
    assert shrink_sizes((10, 1, 5), 16) == (10, 1, 5)
    assert shrink_sizes((8, 4, 4), 8) == (4, 2, 2)
    assert shrink_sizes((10, 1, 5), 3) == (1, 1, 1)
    assert shrink_sizes((10, 1, 5), 2) == (1, 1)


def test_sizes_of_another_sum_or_number_are_refused():
    with pytest.raises(StepsError, match="group_sizes sums to 15; this model has 16 positions") as error:
        make_plan(PlanSpec(group_sizes=(10, 5)), (4, 4), seed=0)
    assert error.value.field == "group_sizes"
    with pytest.raises(StepsError, match="group_sizes lists 2 steps, and steps is 3: give one of them"):
        PlanSpec(group_sizes=(10, 6), steps=3)
    assert PlanSpec(group_sizes=(10, 6)).with_steps(4) == PlanSpec(steps=4)
    assert PlanSpec(group_sizes=(10, 6)).with_steps(2).group_sizes == (10, 6)


def test_a_plan_over_nothing_has_no_steps():
    plan = make_plan(PlanSpec(), (2, 2), seed=0, given=range(4))
    assert (plan.steps, plan.length) == (0, 0)
