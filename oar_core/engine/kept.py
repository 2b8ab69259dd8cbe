"""Measurements of this machine that its processes share: files in a folder."""

import json
import logging
import os
import platform
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


def kept(path: Path, kind: type[Measured], measure: Callable[[], Measured]) -> Measured:
    """What the file holds; else it is measured, and kept there.

    Of several processes the first one decides, so that they compute alike. Where the folder cannot be written each
    process measures for itself.
    """
    if not path.exists():
        measured = measure()
        try:
            _keep(path, json.dumps(asdict(measured)))
        except OSError as error:
            reason = error.strerror or error
            logger.warning("the calibration is not kept: %s cannot be written (%s)", path.parent, reason)
            return measured
    return kind(**json.loads(path.read_text(encoding="utf-8")))


def _keep(path: Path, text: str) -> None:
    """Whole or not at all; a file that is there meanwhile stays. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    with suppress(FileExistsError):
        os.link(draft, path)
    draft.unlink()


def machine() -> tuple[str, ...]:
    """What of the machine and the build decides how quick a kernel is."""
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
