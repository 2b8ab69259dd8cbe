"""A server that may have 1,024 sockets is allowed more than 1,024 open files."""

import os
import subprocess
import sys

import pytest

from tests.server.live import ROOT

PROGRAM = """
import logging, resource, sys
from oar_cli.file_limit import raise_file_limit
from server.settings import Settings

logging.basicConfig()
soft, hard, sockets = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
raise_file_limit(Settings(max_sockets=sockets))
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "sockets", "after", "warns"),
    [(256, 4096, 1024, 1344, False), (2000, 4096, 1024, 2000, False), (256, 1000, 1024, 1000, True)],
    ids=["raised", "enough", "not enough"],
)
def test_the_limit_of_open_files_follows_the_sockets(
    soft: int, hard: int, sockets: int, after: int, *, warns: bool
) -> None:
    """In a process of its own, which cannot take the limit back."""
    command = [sys.executable, "-c", PROGRAM, *map(str, (soft, hard, sockets))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert int(ended.stdout) == after
    assert ("OAR_MAX_SOCKETS=1024 needs 1344 open files, 1000 are allowed" in ended.stderr) is warns
