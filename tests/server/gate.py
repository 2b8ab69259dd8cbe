"""A switch that holds a running job: the engine stands still before a step until the test lets it go on."""

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

GATE_VARIABLE = "TEST_GATE"  # the gate's file, for the processes that a test starts
PAUSE_SECONDS = 0.005


class Gate:
    """A file that says how many steps each engine may make since the gate was closed; no file is no limit.

    Each process counts its own steps, and one that is started again counts from 0.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._number = 0  # of this closing
        self._allowed = 0

    @property
    def environment(self) -> dict[str, str]:
        return {GATE_VARIABLE: str(self._path)}

    def close(self, steps: int = 0) -> None:
        """Lets each engine make `steps` more steps, and no other."""
        self._number += 1
        self._write(steps)

    def allow(self, steps: int) -> None:
        """Lets each engine make so many more than before."""
        self._write(self._allowed + steps)

    def _write(self, allowed: int) -> None:
        self._allowed = allowed
        part = self._path.with_suffix(".part")
        part.write_text(f"{self._number} {allowed}")
        os.replace(part, self._path)

    def open(self) -> None:
        self._path.unlink(missing_ok=True)

    def guard(self, step: Callable[P, T]) -> Callable[P, T]:
        """The step, behind the gate."""
        known, made = 0, 0

        def may_go() -> bool:
            nonlocal known, made
            number, allowed = self._read()
            if number != known:
                known, made = number, 0
            if made >= allowed:
                return False
            made += 1
            return True

        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            while not may_go():
                time.sleep(PAUSE_SECONDS)
            return step(*args, **kwargs)

        return guarded

    def _read(self) -> tuple[int, float]:
        """The number of the closing, and how many steps it allows."""
        try:
            number, allowed = self._path.read_text().split()
        except FileNotFoundError:
            return 0, math.inf
        return int(number), int(allowed)
