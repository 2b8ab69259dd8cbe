"""Memory that this process takes from the operating system."""

import ctypes
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

from oar_core.errors import WeightsError

# Parameters of glibc's mallopt(3).
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
NEVER_TRIM = -1
CGROUPS = Path("/sys/fs/cgroup")
RECLAIMABLE = ("inactive_file ", "active_file ")
# Tables of a step lie below both; caches and weights, which are rare and large, may lie above and go back when freed.
LARGE, LARGE_OF_OLD_GLIBC = 256 << 20, 32 << 20


def keep_freed_memory() -> bool:
    """Has the C library keep what is freed, for the next step, instead of giving it back and asking again.

    A step of many rows makes tables of megabytes. Where these are larger than malloc keeps by itself, each is mapped
    anew, and every page of it is a fault of the kernel that zeroes the page. One arena, because those of threads are
    too small for such tables. Has to come before threads start. False where the C library is not glibc: then nothing
    changes.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    takes_tables = mallopt(MMAP_THRESHOLD, LARGE) or mallopt(MMAP_THRESHOLD, LARGE_OF_OLD_GLIBC)
    return bool(takes_tables and mallopt(TRIM_THRESHOLD, NEVER_TRIM) and mallopt(ARENA_MAX, 1))


def page_faults() -> int:
    """Pages that the kernel gave this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def available_memory() -> int | None:
    """Bytes that this process may still take: of the machine, of its control groups and by its own limit. None where
    the system does not say."""
    if sys.platform != "linux":
        return None
    return min((*_of_machine(), *_of_groups(), *_of_limit()), default=None)


def check_memory(num_bytes: int, what: str) -> None:
    """Checks memory before anything is read: a process that takes too much is killed without a message. Raises
    WeightsError."""
    available = available_memory()
    if available is not None and num_bytes > available:
        raise WeightsError(
            f"{what} takes {in_words(num_bytes)} of memory, and {in_words(available)} are available; nothing was read"
        )


def in_words(num_bytes: int) -> str:
    """A number of bytes as people read it."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"


def _of_machine() -> Iterator[int]:
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) << 10


def _of_groups() -> Iterator[int]:
    """Limits of each control group (version 2) that this process is in. Files that it has read may be given up."""
    name = next((line[3:] for line in _lines(Path("/proc/self/cgroup")) if line.startswith("0::")), None)
    if name is None:
        return
    folder = CGROUPS / name.lstrip("/")
    for place in (folder, *folder.parents):
        if not place.is_relative_to(CGROUPS):
            break
        limit, used = _lines(place / "memory.max"), _lines(place / "memory.current")
        if limit and used and limit[0] != "max":
            cached = sum(int(line.split()[1]) for line in _lines(place / "memory.stat") if line.startswith(RECLAIMABLE))
            yield max(0, int(limit[0]) - int(used[0]) + cached)


def _of_limit() -> Iterator[int]:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        pages = int(_lines(Path("/proc/self/statm"))[0].split()[0])
        yield max(0, soft - pages * resource.getpagesize())


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
