"""Keeps child processes running: starts, restarts with backoff, stops, and takes them along when it is killed.

A rolling restart goes through the children one by one: the successor is started, and when it says that it serves, the
predecessor is told to stop and waited for. So there is always somebody who serves.
"""

import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from oar_cli.inherit import EXIT_CONFIG, LISTEN_FD, PARENT_FD, READY_FD

logger = logging.getLogger(__name__)

FIRST_DELAY = 0.2  # seconds
MAX_DELAY = 15.0
PROGRAM = (sys.executable, "-m", "oar_cli")  # that runs a child's verb
STEADY_SECONDS = 30.0  # a child that ran this long starts afresh with the first delay


class ChildRefused(RuntimeError):
    """A child ended because its settings or its model cannot work."""


@dataclass
class Child:
    name: str
    verb: str
    process: subprocess.Popen[bytes] | None = None
    predecessor: subprocess.Popen[bytes] | None = None  # that `process` replaces
    ready: int | None = None  # end of a pipe at which `process` says that it serves
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
        self._to_roll: list[Child] = []

    def roll(self) -> None:
        """Begins a rolling restart, the workers first; `tend` carries it on."""
        self._to_roll = sorted(self._children, key=lambda child: child.verb == "api")
        logger.info("rolling restart of %d processes", len(self._to_roll))

    def tend(self) -> None:
        """Starts what is due, notices what ended, goes on with a rolling restart. Raises ChildRefused."""
        if self._to_roll:
            self._roll_on(self._to_roll[0])
        for child in self._children:
            if child.process is not None and child.process.poll() is not None:
                self._note_end(child, child.process.returncode)
            if child.process is None and time.monotonic() >= child.starts_at:
                self._start(child)

    def _roll_on(self, child: Child) -> None:
        if child.process is None:
            self._to_roll.remove(child)  # it is about to be started anyway
        elif child.predecessor is None:
            child.predecessor = child.process
            self._start(child)
        elif child.predecessor.poll() is not None:
            logger.info("%s was replaced", child.name)
            child.predecessor = None
            self._to_roll.remove(child)
        elif child.ready is not None and select.select([child.ready], [], [], 0)[0]:
            serves = os.read(child.ready, 1)  # nothing where it ended instead
            self._close_ready(child)
            if serves:
                child.predecessor.terminate()

    def stop(self, seconds: float) -> None:
        """Workers first: whoever asks the API meanwhile is told that nobody is ready, and streams go on to their ends.

        SIGTERM to each, SIGKILL to what is left after `seconds`.
        """
        for is_api in (False, True):
            self._stop([child for child in self._children if (child.verb == "api") is is_api], seconds)
        os.close(self._read_end)
        os.close(self._write_end)

    def _stop(self, children: Sequence[Child], seconds: float) -> None:
        running = self._processes(children)
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
        for child in children:
            self._close_ready(child)

    def kill(self) -> None:
        """Ends all children now; their jobs are safe in Redis."""
        for process in self._processes(self._children):
            process.send_signal(signal.SIGKILL)

    def _processes(self, children: Sequence[Child]) -> list[subprocess.Popen[bytes]]:
        pairs = [(child.process, child.predecessor) for child in children]
        return [process for pair in pairs for process in pair if process is not None]

    def _close_ready(self, child: Child) -> None:
        if child.ready is not None:
            os.close(child.ready)
            child.ready = None

    def _start(self, child: Child) -> None:
        self._close_ready(child)
        child.ready, said = os.pipe()
        inherited = {LISTEN_FD: str(self._listener_fd), PARENT_FD: str(self._read_end), READY_FD: str(said)}
        child.process = subprocess.Popen(
            [*PROGRAM, child.verb],
            env={**os.environ, **self._environment, **inherited},
            stdin=subprocess.DEVNULL,
            pass_fds=(self._listener_fd, self._read_end, said),
            start_new_session=True,  # Ctrl-C in a terminal reaches us alone; we stop them in order
        )
        os.close(said)
        child.started_at = time.monotonic()

    def _note_end(self, child: Child, code: int) -> None:
        child.process, child.predecessor = child.predecessor, None
        self._close_ready(child)
        if child.process is not None:
            logger.error("%s could not be replaced code=%d", child.name, code)
            self._to_roll.remove(child)
            return
        if code == EXIT_CONFIG:
            raise ChildRefused(f"the {child.name} cannot start; its log above says why")
        if time.monotonic() - child.started_at > STEADY_SECONDS:
            child.delay = FIRST_DELAY
        logger.error("%s ended code=%d, starting it again in %.1f s", child.name, code, child.delay)
        child.starts_at = time.monotonic() + child.delay
        child.delay = min(child.delay * 2, MAX_DELAY)
