"""Writes the client for ordinary code from the one for asyncio: a part of `make documents`."""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import unasync

SOURCE = Path("oar_client/aio.py")
HEAD = '''"""`Client`: the server from ordinary code. Written by `make documents` from `oar_client/aio.py`: do not edit.

Threads: threads may share a client; one thread at a time reads an event stream. Forks: a client may be made before a
fork; each process opens connections of its own, and streams that were open stay with the parent.
"""
'''
NAMES = {
    "AsyncClient": "Client",
    "AsyncConnections": "Connections",
    "AsyncEventStream": "EventStream",
    "AsyncJob": "Job",
    "AsyncServerClient": "ServerClient",
    "aclose": "close",
    "aio_connections": "connections",
}


def twin_source() -> str:
    """The text of oar_client/client.py."""
    with TemporaryDirectory() as folder:
        given, made = Path(folder, "aio", SOURCE.name), Path(folder, "plain", SOURCE.name)
        given.parent.mkdir()
        given.write_text(SOURCE.read_text(encoding="utf-8"), encoding="utf-8")
        rule = unasync.Rule(f"{given.parent}/", f"{made.parent}/", additional_replacements=NAMES)
        unasync.unasync_files([str(given)], [rule])
        _, _, code = made.read_text(encoding="utf-8").split('"""', 2)
        return _formatted(f"{HEAD}{code}")


def _formatted(text: str) -> str:
    """Formats as `make lint` does: names became shorter."""
    for words in (["check", "--select", "I", "--fix", "--quiet"], ["format", "--quiet"]):
        command = [sys.executable, "-m", "ruff", *words, "--stdin-filename", "oar_client/client.py", "-"]
        text = subprocess.run(command, input=text, capture_output=True, encoding="utf-8", check=True).stdout
    return text
