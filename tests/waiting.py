"""Waiting for a condition: tests hold or wait for what they need, and no test hopes for a moment."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

HANG_SECONDS = 180.0  # a guard against hangs, and no measure: no machine is so busy that it takes as long
PAUSE_SECONDS = 0.02


def wait_for(condition: Callable[[], T], seconds: float = HANG_SECONDS) -> T:
    """Asks until the answer is true, and returns it."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(PAUSE_SECONDS)
    return value


async def wait_until(condition: Callable[[], Awaitable[T]], seconds: float = HANG_SECONDS) -> T:
    """`wait_for` of a coroutine function."""
    deadline = time.monotonic() + seconds
    while not (value := await condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(PAUSE_SECONDS)
    return value
