"""`oar serve` of a version, and a client that speaks to every version: HTTP alone, none of our own packages."""

import hashlib
import io
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
from PIL import Image

from ops.versions.tree import Tree

PROC = Path("/proc")
TIMEOUT = 600.0  # seconds; a guard against a server that hangs
PAUSE = 0.05
STOP_SECONDS = 40.0

T = TypeVar("T")


@dataclass(frozen=True)
class ServedPicture:
    """A finished picture: its tokens as (position, token) in the order of decoding, and its PNG without metadata."""

    tokens: tuple[tuple[int, int], ...]
    png: bytes

    @property
    def pixels(self) -> str:
        """A digest of size and pixels, whatever the file's compression."""
        with Image.open(io.BytesIO(self.png)) as image:
            return hashlib.sha256(f"{image.size}{image.mode}".encode() + image.tobytes()).hexdigest()


class Server:
    """`settings` are environment variables. Raises RuntimeError for a server that does not start."""

    def __init__(self, tree: Tree, data_dir: Path, **settings: str) -> None:
        self._tree = tree
        self._log = data_dir / "serve.log"
        own = {"OAR_DATA_DIR": str(data_dir), "OAR_WEIGHTS_DIR": str(tree.weights), "OAR_PORT": "0"}
        quiet = {"OAR_THREADS": "1", "OAR_LOG_LEVEL": "warning", "OAR_QUEUE_DEPTH": "1000"}
        self._environment = tree.environment(**own, **quiet, **settings)

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._tree.command("serve"),
                cwd=self._tree.folder,
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
            )
        assert self._process.stdout is not None
        url = self._process.stdout.readline().strip()
        if not url:
            self._process.wait()
            log_end = self._log.read_text(encoding="utf-8")[-2000:]
            raise RuntimeError(f"`oar serve` of {self._tree.name} did not start: {log_end}")
        self.client = httpx.Client(base_url=url, timeout=TIMEOUT, trust_env=False)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        self._process.wait(STOP_SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def models(self) -> list[dict[str, Any]]:
        return self.client.get("/v1/models").raise_for_status().json()["data"]

    def openapi(self) -> dict[str, Any]:
        return self.client.get("/openapi.json").raise_for_status().json()

    def submit(self, path: str, body: dict[str, Any]) -> str:
        """The job's id. Raises RuntimeError with the server's sentence for a refusal."""
        answer = self.client.post(path, json=body)
        if answer.status_code != 202:
            raise RuntimeError(f"{self._tree.name} refused {path} {_short(body)}: {answer.text[:500]}")
        return answer.json()["id"]

    def status(self, job_id: str) -> dict[str, Any]:
        return self.client.get(f"/v1/generations/{job_id}").raise_for_status().json()

    def events(self, job_id: str) -> list[dict[str, Any]]:
        """All events of a job, once it has ended."""
        with self.client.stream("GET", f"/v1/generations/{job_id}/events", params={"after": 0}) as lines:
            frames = [line.partition(":")[2] for line in lines.iter_lines() if line.startswith("data:")]
        return [json.loads(frame) for frame in frames]

    def pictures(self, job_id: str) -> list[ServedPicture]:
        """Waits for the end. Raises RuntimeError for a job that was not completed."""
        events = self.events(job_id)
        status = self.status(job_id)
        if status["status"] != "completed":
            raise RuntimeError(f"{self._tree.name} did not complete {job_id}: {status['error']}")
        return [self._picture(link, events) for link in status["images"]]

    def _picture(self, link: dict[str, Any], events: list[dict[str, Any]]) -> ServedPicture:
        png = self.client.get(link["url"], params={"metadata": "false"}).raise_for_status().content
        of_image = [event for event in events if event["type"] == "patches" and event["image"] == link["index"]]
        patches = [patch for event in of_image for patch in event["patches"]]
        return ServedPicture(tuple((patch["position"], patch["token"]) for patch in patches), png)

    def kill_worker(self) -> None:
        """The worker dies, and nobody starts another: the supervisor is held. The API goes on to accept jobs."""
        self._process.send_signal(signal.SIGSTOP)
        workers = _children(self._process.pid, "worker")
        assert workers, "the server has no worker"
        for pid in workers:
            os.kill(pid, signal.SIGKILL)

    def kill(self) -> None:
        """The supervisor dies, the API and the bundled Valkey end after it."""
        self._process.kill()
        self._process.wait()


def wait_for(condition: Callable[[], T]) -> T:
    """Raises TimeoutError."""
    deadline = time.monotonic() + TIMEOUT
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing within {TIMEOUT:.0f} s")
        time.sleep(PAUSE)
    return value


def _children(parent: int, word: str) -> list[int]:
    """Processes of `parent` that have `word` on their command line, by /proc."""
    found: list[int] = []
    for path in PROC.glob("[0-9]*"):
        try:
            is_child = int((path / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1]) == parent
            words = (path / "cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if is_child and word in words:
            found.append(int(path.name))
    return found


def _short(body: dict[str, Any]) -> str:
    return json.dumps({key: value for key, value in body.items() if key not in {"image", "mask"}})
