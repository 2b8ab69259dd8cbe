"""The processes of this machine, read from /proc: `ps` and `pgrep` are not everywhere."""

from pathlib import Path

PROC = Path("/proc")


def find_processes(*words: str, parent: int | None = None) -> list[int]:
    """Ids of living processes whose command line holds every word, children of `parent` alone if it is given."""
    found: list[int] = []
    for path in PROC.iterdir():
        if not path.name.isdigit():
            continue
        try:
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            ppid = int((path / "stat").read_bytes().rpartition(b")")[2].split()[1])
        except OSError:  # it has ended, or is not ours to look at
            continue
        if all(word in command for word in words) and parent in (None, ppid):
            found.append(int(path.name))
    return found
