"""`python -m ops.repeat` runs what it says as often as it says, and tells what failed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TESTS = """
import pytest
from hypothesis import given, settings, strategies as st

SEEN = []

@settings(max_examples=9, database=None)
@given(st.integers(0, 1 << 60))
def test_a_property(number):
    with open({log!r}, "a") as log:
        log.write(f"{{number}}\\n")

@pytest.mark.running
def test_a_running_job():
    SEEN.append(1)
    assert len(SEEN) != {fails_at}
"""


def repeat(folder: Path, *words: str, fails_at: int = 0) -> tuple[int, list[str], dict[str, Any]]:
    """The exit code, the lines, and the last one read as JSON."""
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = running: x\n", encoding="utf-8")
    test = folder / "test_it.py"
    test.write_text(TESTS.format(log=str(folder / "numbers.txt"), fails_at=fails_at), encoding="utf-8")
    command = [sys.executable, "-m", "ops.repeat", *words, *(() if "--" in words else ("--",)), str(test)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    lines = done.stdout.splitlines()
    return done.returncode, lines, json.loads(lines[-1])


def test_property_tests_are_run_with_other_seeds_and_no_others(tmp_path: Path) -> None:
    code, lines, figures = repeat(tmp_path, "seeds", "--count", "3", "--first", "7")
    assert (code, figures["passed"], figures["failures"]) == (0, 3, {})
    assert [line.partition(":")[0] for line in lines[:-1]] == ["seed 7", "seed 8", "seed 9"]
    repeat(tmp_path, "seeds", "--count", "1", "--first", "8")
    numbers = (tmp_path / "numbers.txt").read_text().split()
    seven, eight, nine, again = (tuple(numbers[at : at + 9]) for at in range(0, 36, 9))
    assert len({seven, eight, nine}) == 3
    assert again == eight, "the seed decides"


def test_tests_of_running_jobs_are_run_many_times_and_failures_are_named(tmp_path: Path) -> None:
    code, lines, figures = repeat(tmp_path, "running", "--count", "5")
    assert (code, figures["passed"], figures["failures"]) == (0, 5, {})
    assert lines[0].startswith("5 times: 5 passed")
    code, lines, figures = repeat(tmp_path, "running", "--count", "5", fails_at=4)
    assert (code, figures["passed"], figures["failed"]) == (1, 4, 1)
    assert any(name.endswith("test_a_running_job[4-5]") for name in figures["failures"])


def test_a_run_of_nothing_is_no_success(tmp_path: Path) -> None:
    code, _, figures = repeat(tmp_path, "running", "--count", "2", "--", "--deselect=test_it.py::test_a_running_job")
    assert code == 1
    assert list(figures["failures"]) == ["2 times: pytest ended with 5"]
