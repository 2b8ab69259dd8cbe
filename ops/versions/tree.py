"""A version of the project as a folder of files, whose `oar` runs with the Python of this process."""

import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Tree:
    name: str
    folder: Path
    weights: Path

    @classmethod
    def of_folder(cls, name: str, folder: Path) -> "Tree":
        return cls(name, folder, folder / "weights")

    def command(self, *words: str) -> list[str]:
        """`oar` with these words. Packages may have moved between versions, so pyproject.toml tells where `oar` is."""
        project = tomllib.loads((self.folder / "pyproject.toml").read_text(encoding="utf-8"))
        module, function = project["project"]["scripts"]["oar"].split(":")
        return [sys.executable, "-c", f"from {module} import {function}; {function}()", *words]

    def environment(self, **settings: str) -> dict[str, str]:
        """This process' environment without settings of a server; the tree's own packages come first."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("OAR_", "REDIS_URL"))}
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        return {**inherited, **threads, "PYTHONPATH": str(self.folder), "PYTHONUTF8": "1", **settings}


@contextmanager
def checked_out(commit: str) -> Iterator[Tree]:
    """A git worktree of `commit` in a temporary folder. Raises CalledProcessError for an unknown commit."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(folder), commit], check=True)
        try:
            yield Tree.of_folder(commit, folder)
        finally:
            subprocess.run([*git, "remove", "--force", str(folder)], check=True)
