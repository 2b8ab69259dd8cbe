import pytest
from hypothesis import given
from hypothesis import strategies as st

from oar_core.engine.cache_pool import CachePool
from oar_core.engine.scheduler import Scheduler
from oar_core.engine.sequence import Phase, Sequence
from oar_core.order.plan import PlanSpec
from oar_core.sampling.decode import Slots
from oar_core.sampling.progress import PictureProgress
from oar_core.sampling.request import SequenceRequest
from oar_core.sampling.sampler import SamplingParams
from tests.engine.backbones import HashBackbone

SPEC = HashBackbone().spec


def make_sequence(name: str, *, guided: bool = False, priority: int = 0) -> Sequence:
    sampling = SamplingParams(guidance=2.0 if guided else 1.0)
    request = SequenceRequest(name, (1,), 0, 0, PlanSpec(steps=4), sampling)
    return Sequence(request, PictureProgress(request, SPEC), priority=priority)


def scheduler_with(num_slots: int, *sequences: Sequence) -> Scheduler:
    scheduler = Scheduler(CachePool(num_slots))
    for sequence in sequences:
        scheduler.add(sequence)
    return scheduler


def admitted_ids(scheduler: Scheduler) -> list[str]:
    return [sequence.id for sequence in scheduler.admit()]


@given(st.lists(st.integers(1, 2), max_size=12))
def test_the_pool_hands_out_the_lowest_slots_and_takes_them_back(counts):
    pool = CachePool(24)
    taken = [pool.take(count) for count in counts]
    assert [slot for slots in taken for slot in slots.all] == list(range(sum(counts)))
    assert pool.num_free == 24 - sum(counts)
    for slots in taken[::-1]:
        pool.release(slots)
    assert pool.num_free == 24
    assert pool.take(2) == Slots(0, 1)


def test_freed_slots_are_reused_before_higher_ones():
    pool = CachePool(8)
    first, _ = pool.take(2), pool.take(1)
    pool.release(first)
    assert [pool.take(1), pool.take(2)] == [Slots(0), Slots(1, 3)]


def test_a_slot_is_not_released_twice():
    pool = CachePool(2)
    slots = pool.take(1)
    pool.release(slots)
    with pytest.raises(AssertionError, match="slot 0 is released and was not in use"):
        pool.release(slots)


def test_a_pair_is_taken_whole_or_not_at_all():
    pool = CachePool(3)
    pool.take(2)
    assert not pool.can_take(2)
    with pytest.raises(AssertionError, match="2 slots wanted, 1 free"):
        pool.take(2)
    assert pool.num_free == 1


def test_first_come_first_served():
    scheduler = scheduler_with(2, *map(make_sequence, "abc"))
    assert admitted_ids(scheduler) == ["a", "b"]
    assert admitted_ids(scheduler) == []
    scheduler.end(scheduler.running[0], Phase.FINISHED)
    assert admitted_ids(scheduler) == ["c"]


def test_a_pair_that_does_not_fit_is_not_starved_by_later_singles():
    scheduler = scheduler_with(2, make_sequence("single"), make_sequence("pair", guided=True), make_sequence("late"))
    assert admitted_ids(scheduler) == ["single"]
    assert admitted_ids(scheduler) == []
    scheduler.end(scheduler.running[0], Phase.FINISHED)
    assert admitted_ids(scheduler) == ["pair"]


def test_higher_priorities_go_first_and_equals_by_arrival():
    scheduler = scheduler_with(
        4,
        make_sequence("a"),
        make_sequence("b", priority=1),
        make_sequence("c"),
        make_sequence("d", priority=1),
    )
    assert admitted_ids(scheduler) == ["b", "d", "a", "c"]


def test_an_aborted_pair_gives_both_slots_back():
    scheduler = scheduler_with(2, make_sequence("pair", guided=True), make_sequence("next", guided=True))
    scheduler.admit()
    scheduler.end(scheduler.running[0], Phase.ABORTED)
    assert admitted_ids(scheduler) == ["next"]


def test_a_waiting_sequence_can_be_aborted_but_not_finished():
    sequence = make_sequence("a")
    with pytest.raises(RuntimeError, match="sequence a is WAITING and cannot become FINISHED"):
        sequence.end(Phase.FINISHED)
    assert sequence.end(Phase.ABORTED) is None


@pytest.mark.parametrize("terminal", [Phase.FINISHED, Phase.ABORTED])
def test_a_terminal_phase_is_final(terminal):
    sequence = make_sequence("a")
    sequence.start(Slots(0))
    assert sequence.end(terminal) == Slots(0)
    for phase in (Phase.FINISHED, Phase.ABORTED):
        with pytest.raises(RuntimeError, match=f"cannot become {phase.name}"):
            sequence.end(phase)
    with pytest.raises(RuntimeError, match="cannot become RUNNING"):
        sequence.start(Slots(0))


def test_the_forecast_lets_the_queue_in_as_slots_become_free():
    scheduler = scheduler_with(2, *map(make_sequence, "abc"), make_sequence("pair", guided=True), make_sequence("d"))
    scheduler.admit()
    assert scheduler.forecast() == {"a": 4, "b": 4, "c": 8, "pair": 12, "d": 16}
