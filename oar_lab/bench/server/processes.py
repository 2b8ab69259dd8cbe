"""CPU time of a server's processes, from /proc."""

import os
from collections import defaultdict
from pathlib import Path

PROC = Path("/proc")


class ServerProcesses:
    """`oar serve` with what it started, and its data folder's Valkey."""

    def __init__(self, pid: int, data_dir: Path) -> None:
        self.pid = pid
        self._guard = data_dir / "redis" / "guard.pid"

    def cpu_seconds(self) -> dict[str, float]:
        """User and system time so far by part: `api`, `worker`, `redis`. Empty where there is no /proc."""
        guard = int(self._guard.read_text(encoding="utf-8")) if self._guard.exists() else None
        seconds: defaultdict[str, float] = defaultdict(float)
        for path in PROC.glob("[0-9]*"):
            try:
                facts = (path / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
                command = (path / "cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            parent = int(facts[1])
            if parent == self.pid:
                part = next((verb for verb in ("api", "worker") if verb in command), None)
            else:
                part = "redis" if parent == guard else None
            if part is not None:
                seconds[part] += (int(facts[11]) + int(facts[12])) / os.sysconf("SC_CLK_TCK")
        return dict(seconds)
