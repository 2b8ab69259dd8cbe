"""Writes docker/locks/*.txt: every package that an image installs, with its version and the hashes of its files.

Versions are those of constraints.txt. Hashes come from the package index, where any file of the version is listed with
its own: the images of other processors install by the same locks. What a lock does not name is not installed.

    make locks

uv resolves and asks for the hashes; pip, which the images have anyway, compares them. torch without CUDA is not in the
package index but in one of its own; where that cannot be reached, `python -m ops.locks --torch FOLDER` takes the hash
of the wheel that lies there.
"""

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCKS = ROOT / "docker" / "locks"
PYTHON = "3.11.13"  # of the images
BUILD = "setuptools"  # builds our own package, without an environment of its own that would fetch another
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
# torch alone is taken from there, whatever else it lists.
SOURCE = """
[tool.uv.sources]
torch = {{ index = "torch" }}
[[tool.uv.index]]
name = "torch"
url = "{url}"
format = "{format}"
explicit = true
"""
HEADER = """\
# {image}: oar-server[{extras}] and all that it needs, for `pip install --require-hashes --no-deps`.
# Written by `make locks` from pyproject.toml and constraints.txt.
"""


@dataclass(frozen=True)
class Lock:
    image: str
    extras: tuple[str, ...]
    is_cpu: bool = False  # with the torch that brings no CUDA; the package index does not have it

    @property
    def path(self) -> Path:
        return LOCKS / f"{self.image}.txt"

    def write(self, torch: str) -> None:
        """`torch` is an index or a folder that has torch's wheels for CPUs. Raises CalledProcessError."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
            kind = "flat" if Path(torch).is_dir() else "simple"
            source = SOURCE.format(url=torch, format=kind) if self.is_cpu else ""
            (folder / "pyproject.toml").write_text(project + source, encoding="utf-8")
            command = [
                *(sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "-", "--output-file", "lock.txt"),
                *("--constraint", str(ROOT / "constraints.txt")),
                *(word for extra in self.extras for word in ("--extra", extra)),
                *("--python-version", PYTHON, "--python-platform", "x86_64-manylinux_2_28", "--only-binary", ":all:"),
                *("--generate-hashes", "--no-header", "--no-annotate", "--quiet"),
            ]
            subprocess.run(command, cwd=folder, input=BUILD, encoding="utf-8", check=True, stdout=subprocess.DEVNULL)
            header = HEADER.format(image=self.image, extras=",".join(self.extras))
            self.path.write_text(header + (folder / "lock.txt").read_text(encoding="utf-8"), encoding="utf-8")


ALL = (
    Lock("api", ("otel", "s3")),
    Lock("worker-cpu", ("worker", "otel", "s3"), is_cpu=True),
    Lock("worker-cuda", ("worker", "otel", "s3")),
)


def write_locks() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--torch", default=TORCH_INDEX, help="index or folder that has torch without CUDA (%(default)s)"
    )
    torch: str = parser.parse_args().torch
    for lock in ALL:
        lock.write(torch)


if __name__ == "__main__":
    write_locks()
