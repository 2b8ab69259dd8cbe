"""Files of a store in a folder of this machine, or of a file system that all processes share."""

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Generator, Iterator
from pathlib import Path

from server.results.files import PROBE, StoredFile, StoreFault, check_path
from server.results.store import ResultsRefused

LEAST_FREE = 16 << 20  # bytes of the disk; below, nothing new is begun
USE_SECONDS = 60.0  # for which a noted use counts: readers do not write each time


class FolderFiles:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def where(self) -> str:
        return str(self._folder)

    def check(self) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _replace(self._folder / PROBE, b"probe")
            (self._folder / PROBE).unlink(missing_ok=True)
            free = shutil.disk_usage(self._folder).free
        except (PermissionError, FileExistsError, NotADirectoryError) as error:
            where, why = self._folder, error.strerror
            message = f"results cannot be written to the folder {where} ({why}): set OAR_DATA_DIR to another"
            raise ResultsRefused(message) from error
        except OSError as error:
            raise StoreFault(f"{self._folder}: {error.strerror}") from error
        if free < LEAST_FREE:
            raise StoreFault(f"{self._folder}: {free >> 20} MiB of the disk are free")

    def write(self, name: str, data: bytes) -> None:
        path = self._folder / check_path(name)
        with _faults(path):
            try:
                _replace(path, data)
            except FileNotFoundError:  # the folder of a new job
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                _replace(path, data)

    def read(self, name: str) -> bytes | None:
        path = self._folder / check_path(name)
        with _faults(path):
            try:
                return path.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def note_use(self, job: str) -> None:
        folder = self._folder / check_path(job)
        with contextlib.suppress(OSError):  # it may be gone, or the disk be read alone
            if time.time() - folder.stat().st_mtime > USE_SECONDS:
                os.utime(folder)

    def delete(self, job: str) -> None:
        folder = self._folder / check_path(job)
        with _faults(folder), contextlib.suppress(FileNotFoundError):
            # The record goes first: a job of which a part is gone must not be found.
            for entry in sorted(os.scandir(folder), key=lambda entry: entry.name != "record.json"):
                Path(entry).unlink(missing_ok=True)
            folder.rmdir()

    def list(self, folder: str = "") -> Iterator[StoredFile]:
        root = self._folder / check_path(folder) if folder else self._folder
        with _faults(root), contextlib.suppress(FileNotFoundError):
            for path, _, names in os.walk(root):
                parent = Path(path)
                job = parent.relative_to(self._folder).as_posix()
                if job.count("/") != 1:
                    continue
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    used_at = parent.stat().st_mtime
                    for name in names:
                        yield StoredFile(f"{job}/{name}", (parent / name).stat().st_size, used_at)


def _replace(path: Path, data: bytes) -> None:
    """Writes a file that is there in full or not at all, also after a crash of the machine."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _faults(path: Path) -> Generator[None]:
    """Raises StoreFault in the place of OSError."""
    try:
        yield
    except OSError as error:
        raise StoreFault(f"{path}: {error.strerror}") from error
