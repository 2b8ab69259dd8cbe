from server.jobs.job import TERMINAL, JobState
from tests.server.jobs.protocol import TRANSITIONS


def test_every_state_has_transitions_and_terminal_ones_have_none() -> None:
    assert set(JobState) == set(TRANSITIONS)
    assert {state for state in JobState if not TRANSITIONS[state]} == TERMINAL
    assert {state for state in JobState if state.is_terminal} == TERMINAL


def test_a_running_job_may_be_handed_back() -> None:
    assert JobState.QUEUED in TRANSITIONS[JobState.RUNNING]
