"""Signals that end a program, as what its clean-up knows already."""

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stopped_by_signals() -> Generator[None]:
    """SIGTERM and SIGHUP are as good as Ctrl-C within: what has to be put in order is. In the main thread alone, which
    is where Python runs handlers; elsewhere nothing changes."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
