"""Keeps child processes running: starts, restarts with backoff, stops, and takes them along when it is killed."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from server.cli.inherit import EXIT_CONFIG, LISTEN_FD, PARENT_FD

logger = logging.getLogger(__name__)

FIRST_DELAY = 0.2  # seconds
MAX_DELAY = 15.0
STEADY_SECONDS = 30.0  # a child that ran this long starts afresh with the first delay


class ChildRefused(RuntimeError):
    """A child ended because its settings or its model cannot work."""


@dataclass
class Child:
    name: str
    verb: str
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    delay: float = FIRST_DELAY
    starts_at: float = field(default_factory=time.monotonic)


class Supervisor:
    def __init__(self, children: Sequence[Child], environment: Mapping[str, str], listener_fd: int) -> None:
        self._children = children
        self._environment = environment
        self._listener_fd = listener_fd
        # The children read this end; the kernel closes the other one with us.
        self._read_end, self._write_end = os.pipe()

    def tend(self) -> None:
        """Starts what is due, notices what ended. Raises ChildRefused."""
        for child in self._children:
            if child.process is not None and child.process.poll() is not None:
                self._note_end(child, child.process.returncode)
            if child.process is None and time.monotonic() >= child.starts_at:
                self._start(child)

    def stop(self, seconds: float) -> None:
        """SIGTERM to all, SIGKILL to what is left after `seconds`."""
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + seconds
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                logger.warning("killed a process that did not stop pid=%d", process.pid)
                process.kill()
                process.wait()
        os.close(self._read_end)
        os.close(self._write_end)

    def kill(self) -> None:
        """Ends all children now; their jobs are safe in Redis."""
        for child in self._children:
            if child.process is not None:
                child.process.send_signal(signal.SIGKILL)

    def _start(self, child: Child) -> None:
        inherited = {LISTEN_FD: str(self._listener_fd), PARENT_FD: str(self._read_end)}
        child.process = subprocess.Popen(
            [sys.executable, "-m", "server.cli", child.verb],
            env={**os.environ, **self._environment, **inherited},
            stdin=subprocess.DEVNULL,
            pass_fds=(self._listener_fd, self._read_end),
            start_new_session=True,  # Ctrl-C in a terminal reaches us alone; we stop them in order
        )
        child.started_at = time.monotonic()

    def _note_end(self, child: Child, code: int) -> None:
        child.process = None
        if code == EXIT_CONFIG:
            raise ChildRefused(f"the {child.name} cannot start; its log above says why")
        if time.monotonic() - child.started_at > STEADY_SECONDS:
            child.delay = FIRST_DELAY
        logger.error("%s ended code=%d, starting it again in %.1f s", child.name, code, child.delay)
        child.starts_at = time.monotonic() + child.delay
        child.delay = min(child.delay * 2, MAX_DELAY)
