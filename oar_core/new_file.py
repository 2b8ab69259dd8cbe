"""Files that are there whole or not at all, whoever writes them at the same time and whenever the process is killed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A path of the caller's own to write to; what it holds at the end takes the place of `path` in one step, and
    nothing does after an error. The folder is made where it is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        part = Path(folder) / path.name
        yield part
        os.replace(part, path)
