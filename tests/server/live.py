"""`oar serve` in a process of its own, and a small client for it."""

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
from websockets.sync.client import connect

from tests.server.gate import Gate
from tests.server.processes import find_processes
from tests.waiting import HANG_SECONDS, wait_for

ROOT = Path(__file__).parents[2]
SLOW = {"OAR_SLOTS": "2", "OAR_THREADS": "1"}


class LiveServer:
    """Where it `is_gated`, its `gate` holds the engines of its workers. It is open at first, and at the end."""

    def __init__(
        self,
        data_dir: Path,
        weights_dir: Path,
        *,
        is_gated: bool = False,
        without: Iterable[str] = (),
        **settings: str,
    ) -> None:
        """`settings` are environment variables; those of `without` are taken out of it."""
        self.data_dir = data_dir
        self.gate = Gate(data_dir / "gate")
        self._program = "tests.server.gated" if is_gated else "oar_cli"
        self.log = data_dir / "serve.log"
        environment = {
            "OAR_DATA_DIR": str(data_dir / "data"),
            "OAR_WEIGHTS_DIR": str(weights_dir),
            "OAR_PORT": "0",
            "OAR_THREADS": "1",
            "OAR_PREVIEW_INTERVAL": "0.02",
            "OAR_LEASE_SECONDS": "15",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            **self.gate.environment,
            **settings,
        }
        inherited = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
        given = inherited | environment
        self._environment = {name: value for name, value in given.items() if name not in set(without)}

    def __enter__(self) -> Self:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self._program, "serve"],
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
            )
        assert self.process.stdout is not None
        is_told, _, _ = select.select([self.process.stdout], [], [], HANG_SECONDS)
        line = self.process.stdout.readline().strip() if is_told else f"nothing in {HANG_SECONDS} s"
        if not line.startswith("http://"):
            self.process.kill()
        assert line.startswith("http://"), f"no URL: {line!r}\n{self.log.read_text(encoding='utf-8')}"
        self.url = line
        self.client = httpx.Client(base_url=line, timeout=HANG_SECONDS, trust_env=False)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.gate.open()
        self.stop(signal.SIGINT)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def stop(self, number: signal.Signals) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(HANG_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not stop:\n{self._where_it_hangs()}") from None
        log = self.log.read_text(encoding="utf-8")
        assert "killed a process that did not stop" not in log, log
        return code

    def _where_it_hangs(self) -> str:
        """The log with the stacks of all threads; then nothing is left running."""
        pids = [self.process.pid, *self.children("api"), *self.children("worker")]
        for number in (signal.SIGUSR1, signal.SIGKILL):
            for pid in pids:
                os.kill(pid, number)
            time.sleep(0.5)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.log.read_text(encoding="utf-8")

    def children(self, verb: str) -> list[int]:
        """Process ids of our children that run `oar VERB`."""
        return find_processes(self._program, f" {verb} ", parent=self.process.pid)

    @contextmanager
    def held(self, steps: int = 0) -> Iterator[Gate]:
        """Its engines make so many more steps and stand still, until the gate is opened or the test leaves."""
        assert self._program == "tests.server.gated", "ask for `is_gated`"
        self.gate.close(steps)
        try:
            yield self.gate
        finally:
            self.gate.open()

    def wait_until_idle(self) -> None:
        """Until no job waits or runs; tests that share this server may have left some."""
        wait_for(lambda: re.search(r"^oar_queue_depth\{.*\} 0.0$", self.client.get("/metrics").text, re.M))

    def post(self, wait: float = 0, **body: Any) -> httpx.Response:
        headers = {"Prefer": f"wait={wait:.0f}"} if wait else {}
        return self.client.post("/v1/generations", json={"prompt": "a red circle", **body}, headers=headers)

    def submit(self, **body: Any) -> dict[str, Any]:
        answer = self.post(**body)
        assert answer.status_code == 202, answer.text
        return answer.json()

    def stream(self, job_id: str, after: int | str = 0) -> "Stream":
        return Stream(self.socket_url(job_id, after))

    def socket_url(self, job_id: str, after: int | str = 0) -> str:
        return f"{self.url.replace('http', 'ws')}/v1/generations/{job_id}/stream?after={after}"

    def events(self, job_id: str, after: int = 0) -> list[dict[str, Any]]:
        """All events to the end."""
        with self.stream(job_id, after) as stream:
            return list(stream)

    def png(self, job_id: str, index: int = 0) -> bytes:
        answer = self.client.get(f"/v1/generations/{job_id}/images/{index}")
        assert answer.status_code == 200, answer.text
        return answer.content


class Stream:
    """Iterates over a websocket's frames until it is closed; then `close_code` is known."""

    def __init__(self, url: str) -> None:
        self._connect = connect(url, open_timeout=HANG_SECONDS, max_size=None, max_queue=None, proxy=None)

    def __enter__(self) -> Self:
        self._socket = self._connect.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> dict[str, Any]:
        from websockets.exceptions import ConnectionClosed

        try:
            return json.loads(self._socket.recv(timeout=HANG_SECONDS))
        except ConnectionClosed:
            raise StopIteration from None

    @property
    def close_code(self) -> int | None:
        return self._socket.protocol.close_code


def wait_for_patches(server: LiveServer, job_id: str, count: int) -> None:
    with server.stream(job_id) as stream:
        for event in stream:
            count -= event["type"] == "patches"
            if not count:
                return
