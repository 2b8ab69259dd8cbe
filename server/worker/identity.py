"""The name of a worker: unique among all workers, and the same again when it is restarted.

So a restarted worker finds the jobs that it held at once, without waiting for their leases to run out.
"""

import fcntl
import itertools
import logging
import secrets
from pathlib import Path
from typing import IO

logger = logging.getLogger(__name__)


class Identity:
    """The first free name of the data folder, held by a lock that the kernel gives back when the process ends.

    Where the folder cannot be written the name is new with each start: jobs of the one before wait for their leases.
    """

    def __init__(self, data_dir: Path) -> None:
        self.name = f"worker-{secrets.token_hex(8)}"
        self._file: IO[str] | None = None
        folder = data_dir / "workers"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = _first_unlocked(folder)
        except OSError as error:
            logger.warning("the worker's name is not kept: %s cannot be written (%s)", folder, error.strerror or error)
        else:
            self.name = _kept_name(self._file, self.name)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _kept_name(file: IO[str], new_name: str) -> str:
    """The one in the file, into which the new one is written if it is empty."""
    file.seek(0)
    name = file.read().strip()
    if not name:
        file.write(new_name)
        file.flush()
    return name or new_name


def _first_unlocked(folder: Path) -> IO[str]:
    for number in itertools.count():
        file = (folder / f"{number}.name").open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        return file
    raise AssertionError("count() does not end")
