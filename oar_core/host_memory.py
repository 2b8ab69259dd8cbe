"""What this process takes from the operating system while it works."""

import ctypes
import resource
import sys

# Parameters of glibc's mallopt(3).
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
NEVER_TRIM = -1
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
