"""A job while it is painted: its events are read in a thread beside, and shown here.

So the keyboard, a new size of the terminal and the clock are heeded while nothing happens.
"""

import contextlib
import queue
import shutil
import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from types import FrameType
from typing import Any, Protocol

import click
from PIL import Image
from tqdm import tqdm

from oar_client import AnyEvent, Canceled, Canvas, Failed
from server.cli.making import Making
from server.cli.painting import (
    CLEAR_BELOW,
    CLEAR_LINE,
    ENTER,
    HOME,
    LEAVE,
    TEXT_LINES,
    Colours,
    Pace,
    arrange,
    lay_out,
    open_picture,
    paint_canvas,
    progress_line,
)

FRAME_SECONDS = 0.05
LEAVE_SECONDS = 5.0  # for the thread beside, after a job was canceled


class View(Protocol):
    """What shows a job. `show` is called often, and after each change."""

    def open(self) -> None: ...
    def show(self, canvas: Canvas) -> None: ...
    def close(self) -> None: ...


class Interrupted(Exception):
    """Ctrl-C, or a signal to stop."""


def follow(making: Making, view: View, tell: Callable[[AnyEvent], None]) -> None:
    """Until the job has completed. Raises Interrupted once the job is canceled, click.ClickException if it failed."""
    canvas = Canvas(making.params.n)
    told: queue.SimpleQueue[AnyEvent | BaseException | None] = queue.SimpleQueue()
    reader = threading.Thread(target=_read, args=(making, told), daemon=True)
    with _stopped_by_signals(), contextlib.ExitStack() as stack:
        try:
            view.open()
            stack.callback(view.close)
            reader.start()
            while canvas.end is None:
                _take(told, canvas, tell)
                view.show(canvas)
        except KeyboardInterrupt:
            stack.close()
            making.cancel()
            reader.join(LEAVE_SECONDS)
            raise Interrupted from None
    if isinstance(canvas.end, Failed):
        raise click.ClickException(canvas.end.error.message)
    if isinstance(canvas.end, Canceled):
        raise click.ClickException("the job was canceled")


def _read(making: Making, told: "queue.SimpleQueue[AnyEvent | BaseException | None]") -> None:
    try:
        for event in making.events():
            told.put(event)
        told.put(None)
    except BaseException as error:  # noqa: BLE001
        told.put(error)  # it is raised where it is waited for


def _take(
    told: "queue.SimpleQueue[AnyEvent | BaseException | None]", canvas: Canvas, tell: Callable[[AnyEvent], None]
) -> None:
    """All that has come, within the time of a frame."""
    deadline = time.monotonic() + FRAME_SECONDS
    while canvas.end is None:
        try:
            item = told.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return
        if isinstance(item, BaseException):
            raise item
        if item is None:
            raise click.ClickException("the events ended before the job")
        canvas.feed(item)
        tell(item)


@contextlib.contextmanager
def _stopped_by_signals() -> Generator[None]:
    """A signal to stop is as good as Ctrl-C: the job is canceled, and the terminal as it was."""

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


class Bar:
    """A plain line on stderr, where that is a terminal."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def open(self) -> None:
        self._bar = tqdm(unit="step", leave=False, disable=None)

    def show(self, canvas: Canvas) -> None:
        assert self._bar is not None
        self._bar.total = canvas.steps or None
        self._bar.update(canvas.step - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class Painting:
    """The pictures as they are painted, on the terminal's other screen; in the end, they stay on the first."""

    def __init__(self, making: Making, colours: Colours, write: Callable[[str], None]) -> None:
        self._making = making
        self._colours: Colours = colours
        self._write = write
        self._pace = Pace()
        self._size = shutil.get_terminal_size()
        self._shown: tuple[object, ...] = ()
        self._is_open = False

    def open(self) -> None:
        self._is_open = True
        self._write(ENTER)

    def show(self, canvas: Canvas) -> None:
        left = self._pace.left(canvas, time.monotonic())
        size, shape = shutil.get_terminal_size(), self._making.shape
        line = progress_line(canvas, shape.num_tokens, self._making.waiting, left, size.columns - 1)
        state = (size, line, *((image.num_known, image.preview) for image in canvas.images))
        if state == self._shown:
            return
        self._shown = state
        is_edit = self._making.params.edit is not None
        pictures = [paint_canvas(image, shape.grid, shape.image_size, is_edit=is_edit) for image in canvas.images]
        lines = [*self._lines(pictures, size.columns, size.lines - TEXT_LINES), "", line]
        self._write(HOME + f"{CLEAR_LINE}\r\n".join(lines[: size.lines]) + CLEAR_LINE + CLEAR_BELOW)

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._write(LEAVE)

    def leave(self, pngs: Sequence[bytes]) -> None:
        """The finished pictures, where they stay."""
        size = shutil.get_terminal_size()
        lines = self._lines([open_picture(png) for png in pngs], size.columns, size.lines - TEXT_LINES)
        self._write("".join(f"{line}\n" for line in lines))

    def _lines(self, pictures: Sequence[Image.Image], columns: int, lines: int) -> list[str]:
        layout = arrange(len(pictures), self._making.shape.image_size, columns - 1, max(1, lines))
        painted = lay_out(pictures, layout, self._colours)
        hidden = len(pictures) - layout.shown
        return [*painted, f"and {hidden} more"] if hidden and len(painted) < lines else painted
