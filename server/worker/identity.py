"""The name of a worker: unique among all workers, and the same again when it is restarted.

So a restarted worker finds the jobs that it held at once, without waiting for their leases to run out.
"""

import fcntl
import itertools
import secrets
from pathlib import Path
from typing import IO


class Identity:
    """The first free name of the data folder, held by a lock that the kernel gives back when the process ends."""

    def __init__(self, data_dir: Path) -> None:
        folder = data_dir / "workers"
        folder.mkdir(parents=True, exist_ok=True)
        self._file = _first_unlocked(folder)
        self._file.seek(0)
        name = self._file.read().strip()
        if not name:
            name = f"worker-{secrets.token_hex(8)}"
            self._file.write(name)
            self._file.flush()
        self.name = name

    def close(self) -> None:
        self._file.close()


def _first_unlocked(folder: Path) -> IO[str]:
    for number in itertools.count():
        file = (folder / f"{number}.name").open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        return file
    raise AssertionError("count() does not end")
