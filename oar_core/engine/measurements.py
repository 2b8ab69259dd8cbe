"""Measurements of this machine that its processes share: files in a folder."""

import json
import logging
import os
import platform
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Measured = TypeVar("Measured", bound=DataclassInstance)
else:
    Measured = TypeVar("Measured")

logger = logging.getLogger(__name__)


def read_or_measure(path: Path, kind: type[Measured], measure: Callable[[], Measured]) -> Measured:
    """Reads the file; else measures, and writes the file.

    Of several processes the first one decides, so that they compute alike. Where the folder cannot be written each
    process measures for itself.
    """
    found = _read(path, kind)
    if found is not None:
        return found
    measured = measure()
    try:
        _write(path, json.dumps(asdict(measured)))
    except OSError as error:
        reason = error.strerror or error
        logger.warning("the calibration is not kept: %s cannot be written (%s)", path.parent, reason)
        return measured
    return _read(path, kind) or measured


def _read(path: Path, kind: type[Measured]) -> Measured | None:
    """None where there is no file, or none that can be read, or a broken one, which is taken away."""
    try:
        return kind(**json.loads(path.read_text(encoding="utf-8")))
    except OSError:
        return None  # where that is no missing file, the folder cannot be written either, which is said then
    except (ValueError, TypeError):
        logger.warning("%s is broken: it is measured once more", path)
        with suppress(OSError):
            path.unlink()
        return None


def _write(path: Path, text: str) -> None:
    """Whole or not at all, also where power is lost; a file that is there meanwhile stays. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent) as draft:
        draft.write(text)
        draft.flush()
        os.fsync(draft.fileno())
        with suppress(FileExistsError):
            os.link(draft.name, path)


def machine() -> tuple[str, ...]:
    """Facts of the machine and the build that decide the speed of a kernel."""
    return torch.__version__, torch.backends.cpu.get_cpu_capability(), _processor()


def _processor() -> str:
    """Its model's name, as far as the system tells."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


@contextmanager
def one_thread() -> Generator[None]:
    """Kernels that are compared divide their work among threads alike, and CPU time is one thread's."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
