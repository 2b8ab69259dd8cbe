"""Files of a store, by blocking calls: a protocol with two implementations, a folder and S3."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

NAME = re.compile(r"(?!\.{1,2}(/|$))[A-Za-z0-9._-]+(/(?!\.{1,2}(/|$))[A-Za-z0-9._-]+)*")
PROBE = ".probe"


class StoreFault(RuntimeError):
    """The store does not do what it is asked to, and may do it later."""


@dataclass(frozen=True)
class StoredFile:
    name: str  # TENANT/JOB/FILE
    size: int  # bytes
    used_at: float  # Unix seconds: of the last use where that is known, else when it was written

    @property
    def job(self) -> str:
        """TENANT/JOB"""
        return self.name.rpartition("/")[0]


class Files(Protocol):
    """Names are segments of letters, digits and ._- with slashes between them. Raises StoreFault."""

    @property
    def where(self) -> str:
        """The place, for logs."""
        ...

    def check(self) -> None:
        """Writes and deletes a probe. Raises ResultsRefused too."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """All of it is there, or what was there before."""
        ...

    def read(self, name: str) -> bytes | None: ...

    def note_use(self, job: str) -> None:
        """Notes that a job (TENANT/JOB) is used now, where the store can."""
        ...

    def delete(self, job: str) -> None:
        """Deletes all files of a job; there may be none."""
        ...

    def list(self, folder: str = "") -> Iterator[StoredFile]: ...


def check_path(name: str) -> str:
    """Raises ValueError for what could lead out of the store."""
    if not NAME.fullmatch(name):
        raise ValueError(f"no name of a stored file: {name[:80]!r}")
    return name
