"""Threads of torch are bounded while other work holds the cores, and given again afterwards."""

import logging

import pytest
import torch

from oar_core.engine import threads as module
from oar_core.engine.threads import LEAST_SECONDS, ThreadGuard, usable_cores


class Machine:
    """Its clock, and how long the work takes on so many threads."""

    def __init__(self) -> None:
        self.time = 0.0
        self.is_busy = False
        self.threads: list[int] = []
        self.looks = 0

    def seconds(self, threads: int) -> float:
        self.looks += 1
        took = (20.0 if self.is_busy else 0.5) if threads > 1 else 1.0
        self.time += took / 1000
        return took

    def guard(self, threads: int) -> ThreadGuard:
        return ThreadGuard(threads, seconds=self.seconds, now=lambda: self.time, set_threads=self.threads.append)


def test_one_thread_is_taken_while_the_machine_is_busy(caplog):
    machine = Machine()
    guard = machine.guard(4)
    for is_busy, threads in [(False, 4), (True, 1), (True, 1), (False, 4)]:
        machine.is_busy = is_busy
        machine.time += 1000
        with caplog.at_level(logging.WARNING):
            guard.look()
        assert (guard.threads, machine.threads[-1]) == (threads, threads)
    assert len(caplog.records) == 2
    assert "torch threads: 1 in place of 4" in caplog.text


def test_looks_take_a_small_share_of_the_time():
    machine = Machine()
    guard = machine.guard(2)
    guard.look()
    before = machine.looks
    machine.time += LEAST_SECONDS / 2
    guard.look()
    assert machine.looks == before
    machine.time += LEAST_SECONDS
    guard.look()
    assert machine.looks > before


def test_one_thread_is_never_looked_at():
    machine = Machine()
    machine.guard(1).look()
    assert not machine.looks
    assert not machine.threads


def test_the_real_work_leaves_a_number_of_threads_that_it_tried():
    before = torch.get_num_threads()
    try:
        guard = ThreadGuard(2)
        guard.look()
        assert torch.get_num_threads() == guard.threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("text", "cores"), [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("", 8)])
def test_a_control_group_bounds_the_cores(tmp_path, monkeypatch, text, cores):
    (tmp_path / "cpu.max").write_text(text)
    monkeypatch.setattr(module, "CPU_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: set(range(8)))
    assert usable_cores() == cores


def test_without_control_groups_it_is_what_the_process_is_bound_to(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CPU_QUOTA", tmp_path / "none")
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: {0, 3, 5})
    assert usable_cores() == 3
