"""A job while it is painted: its events are read in a thread beside, and shown here.

So the keyboard, a new size of the terminal and the clock are heeded while nothing happens.
"""

import contextlib
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import click
from tqdm import tqdm

from oar_cli.failure import CommandFailed
from oar_cli.job_handle import JobHandle
from oar_cli.painting import (
    CLEAR,
    CLEAR_LINE,
    ENTER,
    LEAVE,
    TEXT_LINES,
    Arrangement,
    Colours,
    Ground,
    Pace,
    arrange,
    half_blocks,
    join_blocks,
    open_picture,
    paint_canvas,
    progress_line,
    scale,
)
from oar_client import AnyEvent, Canceled, Canvas, Failed, ImageCanvas
from oar_wire.errors import restore
from server.stop_signals import stopped_by_signals

FRAME_SECONDS = 0.05
LEAVE_SECONDS = 5.0  # for the thread beside, after a job was canceled


class View(Protocol):
    """A display of a job. `show` is called often, and after each change."""

    def open(self) -> None: ...
    def show(self, canvas: Canvas) -> None: ...
    def close(self) -> None: ...


class Interrupted(Exception):
    """Ctrl-C, or a signal to stop."""


def follow_job(job: JobHandle, view: View, tell: Callable[[AnyEvent], None]) -> None:
    """Until the job has completed. Raises Interrupted once the job is canceled, click.ClickException if it failed."""
    canvas = Canvas(job.params.n)
    events: queue.SimpleQueue[AnyEvent | BaseException | None] = queue.SimpleQueue()
    reader = threading.Thread(target=_read, args=(job, events), daemon=True)
    with stopped_by_signals(), contextlib.ExitStack() as stack:
        try:
            view.open()
            stack.callback(view.close)
            reader.start()
            while canvas.end is None:
                _take(events, canvas, tell)
                view.show(canvas)
        except KeyboardInterrupt:
            stack.close()
            job.cancel()
            reader.join(LEAVE_SECONDS)
            raise Interrupted from None
    if isinstance(canvas.end, Failed):
        failure = canvas.end.error
        raise CommandFailed(restore(failure.code, failure.message, failure.field))
    if isinstance(canvas.end, Canceled):
        raise click.ClickException("the job was canceled")


def _read(job: JobHandle, events: "queue.SimpleQueue[AnyEvent | BaseException | None]") -> None:
    try:
        for event in job.events():
            events.put(event)
        events.put(None)
    except BaseException as error:  # noqa: BLE001
        events.put(error)  # it is raised where it is waited for


def _take(
    events: "queue.SimpleQueue[AnyEvent | BaseException | None]", canvas: Canvas, tell: Callable[[AnyEvent], None]
) -> None:
    """All that has come, within the time of a frame."""
    deadline = time.monotonic() + FRAME_SECONDS
    while canvas.end is None:
        try:
            item = events.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return
        if isinstance(item, BaseException):
            raise item
        if item is None:
            raise click.ClickException("the events ended before the job")
        canvas.feed(item)
        tell(item)


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


class PaintedView:
    """The pictures as they are painted, on the terminal's other screen; in the end, they stay on the first.

    Only what has changed is painted and written again: the line may be long, and a terminal is slow.
    """

    def __init__(
        self, job: JobHandle, colours: Colours, write: Callable[[str], None], ground: Ground | None = None
    ) -> None:
        self._job = job
        self._colours: Colours = colours
        self._ground = ground
        self._write = write
        self._pace = Pace()
        self._painted: dict[int, tuple[object, list[str]]] = {}  # by picture: what it shows, and its lines
        self._size: os.terminal_size | None = None
        self._screen: list[str] = []
        self._is_open = False

    def open(self) -> None:
        self._is_open = True
        self._write(ENTER)

    def show(self, canvas: Canvas) -> None:
        size, shape = shutil.get_terminal_size(), self._job.shape
        left = self._pace.left(canvas, time.monotonic())
        drawn = shape.num_tokens - (self._ground.num_kept if self._ground else 0)
        progress = progress_line(canvas, drawn, self._job.waiting, left, size.columns - 1)
        layout = arrange(len(canvas.images), shape.image_size, size.columns - 1, max(1, size.lines - TEXT_LINES))
        blocks = [self._paint(image, layout) for image in canvas.images[: layout.shown]]
        lines = [*join_blocks(blocks, layout, len(canvas.images)), "", progress][-size.lines :]
        self._write("".join(self._changes(lines, size)))

    def _paint(self, image: ImageCanvas, layout: Arrangement) -> list[str]:
        shape = self._job.shape
        state = (layout, image.num_written, image.preview)
        known = self._painted.get(image.index)
        if known is None or known[0] != state:
            picture = paint_canvas(image, shape.grid, shape.image_size, self._ground)
            known = state, half_blocks(scale(picture, layout), self._colours)
            self._painted[image.index] = known
        return known[1]

    def _changes(self, lines: list[str], size: os.terminal_size) -> list[str]:
        """Computes the text that makes the screen show these lines; all of it where the terminal has a new size."""
        before = self._screen
        if size != self._size or len(lines) != len(before):
            before = []
        changes = [] if before else [CLEAR]
        for row, line in enumerate(lines):
            if not before or line != before[row]:
                changes.append(f"\x1b[{row + 1};1H{line}{CLEAR_LINE}")
        self._screen, self._size = lines, size
        return changes

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._write(LEAVE)

    def leave(self, pngs: Sequence[bytes]) -> None:
        """The finished pictures, where they stay."""
        size = shutil.get_terminal_size()
        below = TEXT_LINES + min(len(pngs), size.lines // 3)  # their names
        layout = arrange(len(pngs), self._job.shape.image_size, size.columns - 1, max(1, size.lines - below))
        blocks = [half_blocks(scale(open_picture(png), layout), self._colours) for png in pngs[: layout.shown]]
        self._write("".join(f"{line}\n" for line in join_blocks(blocks, layout, len(pngs))))
