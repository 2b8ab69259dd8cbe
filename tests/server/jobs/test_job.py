import pytest

from server.jobs.job import ACTIVE, TERMINAL, TRANSITIONS, IllegalTransition, JobState, check_transition


def test_every_state_is_active_or_terminal_and_has_transitions() -> None:
    assert set(JobState) == ACTIVE | TERMINAL == set(TRANSITIONS)
    assert not ACTIVE & TERMINAL


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_a_terminal_state_is_left_by_no_transition(state: JobState) -> None:
    assert state.is_terminal
    for after in JobState:
        with pytest.raises(IllegalTransition, match=f"{state} cannot become {after}"):
            check_transition(state, after)


def test_a_running_job_may_be_handed_back() -> None:
    check_transition(JobState.RUNNING, JobState.QUEUED)
