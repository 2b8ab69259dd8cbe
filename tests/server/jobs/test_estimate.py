import pytest
from hypothesis import given
from hypothesis import strategies as st

from oar_wire.model import WorkerInfo
from server.jobs.estimate import MAX_RETRY_SECONDS, START_SECONDS, Fleet, Speed, StepTimes, eta, retry_after

seconds = st.just(0.0) | st.floats(1e-4, 10)
fleets = st.builds(Fleet, st.lists(st.builds(Speed, st.integers(1, 256), seconds), max_size=4).map(tuple))
work = st.integers(0, 10**7)


@given(work, work, fleets)
def test_retry_after_grows_with_the_depth_and_is_never_below_a_second(less: int, more: int, fleet: Fleet) -> None:
    less, more = sorted((less, more))
    assert 1 <= retry_after(less, fleet) <= retry_after(more, fleet) <= MAX_RETRY_SECONDS


@given(work, work, st.integers(1, 10**4), st.integers(1, 64), fleets)
def test_eta_grows_with_what_is_ahead_and_is_never_negative(
    less: int, more: int, own: int, rows: int, fleet: Fleet
) -> None:
    less, more = sorted((less, more))
    near, far = eta(less, own, rows, fleet), eta(more, own, rows, fleet)
    if near is None or far is None:
        assert not fleet.is_measured
    else:
        assert 0 <= near <= far


@given(work, fleets, st.builds(Speed, st.integers(1, 256), st.floats(1e-4, 10)))
def test_another_worker_as_fast_as_the_rest_makes_nobody_wait_longer(total: int, fleet: Fleet, speed: Speed) -> None:
    if fleet.is_measured:
        other = Speed(speed.slots, fleet.step_seconds)
        assert retry_after(total, Fleet((*fleet.workers, other))) <= retry_after(total, fleet) + 1e-9


def test_the_figures_are_the_known_lengths() -> None:
    fleet = Fleet((Speed(64, 0.05), Speed(32, 0.1)))
    assert fleet.rate() == pytest.approx(64 / 0.05 + 32 / 0.1)
    assert retry_after(16_000, fleet) == pytest.approx(10)
    # 20 steps of 4 rows, at the slower worker's speed, after what is ahead.
    assert eta(1_600, 80, 4, fleet) == pytest.approx(1 + 20 * 0.1)
    # 100 rows do not fit into one step of 64 slots.
    assert eta(0, 1000, 100, fleet) == pytest.approx(16 * 0.1)


def test_without_a_worker_one_has_to_start_first() -> None:
    assert retry_after(0, Fleet()) == START_SECONDS
    assert eta(0, 1, 1, Fleet()) is None


def test_only_workers_that_take_the_models_jobs_count() -> None:
    workers = [
        WorkerInfo(name="a", models=("x",), slots=4, step_seconds=0.1),
        WorkerInfo(name="b", models=("y",), slots=4, step_seconds=0.1),
        WorkerInfo(name="c", models=("x", "y"), slots=4, step_seconds=0.1, is_draining=True),
    ]
    assert Fleet.of("x", workers).workers == (Speed(4, 0.1),)


@given(st.floats(0, 1), st.floats(1e-4, 1), st.lists(st.integers(1, 64), min_size=2, max_size=50))
def test_what_a_row_costs_is_found_from_steps_of_different_sizes(base: float, row: float, loads: list[int]) -> None:
    times = StepTimes()
    for rows in (*loads, 1, 64):
        times.add(rows, base + row * rows)
    assert times.row_seconds == pytest.approx(row, rel=1e-3)
    assert times.base_seconds == pytest.approx(base, abs=1e-3 * (base + 64 * row))


@given(st.lists(st.tuples(st.integers(0, 64), st.floats(0, 10)), max_size=30))
def test_no_time_is_ever_negative(steps: list[tuple[int, float]]) -> None:
    times = StepTimes()
    for rows, seconds in steps:
        times.add(rows, seconds)
        assert times.row_seconds >= 0
        assert times.base_seconds >= 0


def test_where_all_steps_are_of_one_size_half_of_them_is_the_rows() -> None:
    times = StepTimes()
    for _ in range(5):
        times.add(2, 0.01)
    assert (times.base_seconds, times.row_seconds) == pytest.approx((0.005, 0.0025))


def test_a_cpu_gains_little_by_many_rows_and_a_gpu_all() -> None:
    """Both have measured steps of two rows at 10 ms: full, the one does 64 rows in 290 ms, the other in 10 ms."""
    cpu = Fleet((Speed(64, 0.01, base_seconds=0.001, row_seconds=0.0045),))
    gpu = Fleet((Speed(64, 0.01, base_seconds=0.01),))
    assert retry_after(6400, cpu) == pytest.approx(28.9)
    assert retry_after(6400, gpu) == pytest.approx(1)
    # Two jobs of eight rows do not fill it.
    assert retry_after(6400, cpu, rows=16) == pytest.approx(6400 / 16 * 0.073)
    assert eta(0, 640, 64, cpu) == pytest.approx(10 * 0.289)


def test_pictures_are_decoded_after_their_last_step() -> None:
    fleet = Fleet((Speed(64, 0.05, picture_seconds=0.1),))
    assert retry_after(0, fleet, pictures=32) == pytest.approx(3.2)
    assert eta(0, 8, 1, fleet, pictures=4) == pytest.approx(8 * 0.05 + 0.4)
