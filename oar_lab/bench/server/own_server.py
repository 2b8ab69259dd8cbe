"""`oar serve` in a process of its own, for as long as a benchmark needs it."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from oar_lab.bench.server.processes import ServerProcesses
from server.jobs.embedded import EmbeddedRedis
from server.stop_signals import stopped_by_signals

STOP_SECONDS = 30.0


class ServerFailed(RuntimeError):
    """It ended before it could serve."""


class OwnServer(NamedTuple):
    url: str
    redis_url: str
    processes: ServerProcesses


@contextmanager
def own_server(settings: Mapping[str, str]) -> Generator[OwnServer]:
    """Bundled Valkey, a free port, a temporary folder; `settings` are environment variables. A benchmark that is told
    to stop takes it along. Raises ServerFailed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inherited = {key: value for key, value in os.environ.items() if key not in {"REDIS_URL", "OAR_API_KEYS"}}
        environment = {**inherited, "OAR_PORT": "0", "OAR_LOG_LEVEL": "warning", **settings, "OAR_DATA_DIR": name}
        with (folder / "serve.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "oar_cli", "serve"],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
            )
        with process, stopped_by_signals():
            assert process.stdout is not None
            try:
                url = process.stdout.readline().strip()
                if not url:
                    raise ServerFailed(
                        f"the server did not start: {(folder / 'serve.log').read_text(encoding='utf-8')[-2000:]}"
                    )
                yield OwnServer(url, EmbeddedRedis(folder).url, ServerProcesses(process.pid, folder))
            finally:
                process.send_signal(signal.SIGINT)
                process.wait(STOP_SECONDS)
