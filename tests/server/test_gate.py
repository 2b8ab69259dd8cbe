"""The gate that other tests hold running jobs with."""

import threading
from pathlib import Path

import pytest

from tests.server.gate import Gate
from tests.waiting import HANG_SECONDS, wait_for


@pytest.mark.running
def test_steps_are_made_as_they_are_allowed(tmp_path: Path) -> None:
    gate, made = Gate(tmp_path / "gate"), list[int]()
    step = gate.guard(made.append)
    step(1)  # an open gate counts nothing
    gate.close(2)

    def make_seven() -> None:
        for number in range(2, 9):
            step(number)

    engine = threading.Thread(target=make_seven)
    engine.start()
    wait_for(lambda: len(made) == 3)
    gate.allow(1)
    wait_for(lambda: len(made) == 4)
    gate.close(2)  # from now on
    wait_for(lambda: len(made) == 6)
    assert engine.is_alive()
    gate.open()
    engine.join(HANG_SECONDS)
    assert made == list(range(1, 9))


@pytest.mark.running
def test_a_process_that_is_started_again_counts_its_own_steps(tmp_path: Path) -> None:
    gate, made = Gate(tmp_path / "gate"), list[int]()
    gate.close(1)
    for number in (1, 2):
        Gate(tmp_path / "gate").guard(made.append)(number)
    assert made == [1, 2]
