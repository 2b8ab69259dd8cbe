"""Forks workers from a process that has imported torch already, so that a new one serves within a fraction of a second.

`python -m tests.chaos.nursery LOG`: reads one order a line on standard input and answers each with a process id. Ends,
with all its workers, when its input ends.
"""

import ctypes
import json
import os
import signal
import sys
import time
import traceback
from typing import Any

import torch

from server.observability.logging import configure_logging
from server.settings import Settings
from server.worker import worker
from server.worker.engine_thread import EngineThread

PR_SET_PDEATHSIG = 1


def main(log: str) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody has to wait for the dead
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            _be_worker(log, json.loads(line))
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def _be_worker(log: str, order: dict[str, Any]) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.close(0)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    configure_logging("text", "info")
    _slow_down(order["step_seconds"], order["die_after"], order["die_late"])
    code = 1
    try:
        worker.run_worker(Settings(**order["settings"]))
        code = 0
    finally:
        if code:
            traceback.print_exc()
        os._exit(code)  # never back into the nursery's own loop


def _slow_down(step_seconds: float, die_after: int | None, die_late: bool) -> None:
    """Makes every engine step last longer; kills the process after so many of them, before or after that is told."""
    original = EngineThread._step
    num_steps = 0

    def step(self: EngineThread, name: str, engine: Any) -> None:
        nonlocal num_steps
        num_steps += 1
        is_last = num_steps == die_after
        if is_last and not die_late:
            engine.step()
            os.kill(os.getpid(), signal.SIGKILL)
        original(self, name, engine)
        time.sleep(0.1 if is_last else step_seconds)
        if is_last:
            os.kill(os.getpid(), signal.SIGKILL)

    EngineThread._step = step


if __name__ == "__main__":
    main(sys.argv[1])
