"""Memory that a process keeps for its next step. Each test has a process of its own: the setting is the process's."""

import subprocess
import sys

import pytest

from oar_core.host_memory import keep_freed_memory
from tests.waiting import HANG_SECONDS

# A thread, as a worker's engine has, that makes and drops a table larger than malloc would ever keep by itself.
TABLES = """
from threading import Thread

import torch

from oar_core.host_memory import keep_freed_memory, page_faults

is_kept = {setting}


def work():
    for _ in range(20):  # until no small object falls between the tables any more
        torch.ones(10 << 20)
    before = page_faults()
    for _ in range(4):
        torch.ones(10 << 20)
    print(is_kept, page_faults() - before)


thread = Thread(target=work)
thread.start()
thread.join()
"""
PAGES = 4 * (40 << 20) // 4096  # of the four tables that are counted


def faults(setting: str) -> int:
    command = [sys.executable, "-c", TABLES.format(setting=setting)]
    is_kept, count = subprocess.run(
        command, capture_output=True, text=True, timeout=HANG_SECONDS, check=True
    ).stdout.split()
    if is_kept == "False":
        pytest.skip("the C library is not glibc")
    return int(count)


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of Linux alone is told")
def test_tables_take_no_new_memory_once_there_was_one() -> None:
    assert faults("keep_freed_memory()") < PAGES / 1000  # what Python and the thread take for themselves


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of Linux alone is told")
def test_pages_are_counted_where_nothing_is_set() -> None:
    """Without which the test above would prove nothing; huge pages are counted as one."""
    assert faults("'unset'") > PAGES / 1000


def test_elsewhere_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oar_core.host_memory.sys.platform", "darwin")
    assert keep_freed_memory() is False
