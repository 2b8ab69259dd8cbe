"""A load that makes every panel of the dashboard say something: jobs of all kinds, streams, cancels, refusals."""

import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

NUM_THREADS = 64  # most jobs that are followed at a time
TIMEOUT = 60.0


class OfferedLoad:
    """An open loop: requests come by a Poisson process, whether or not the server keeps up."""

    def __init__(self, url: str, prompts: Sequence[str], steps: int, seed: int = 0) -> None:
        self._url = url
        self._prompts = prompts
        self._steps = steps
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self.num_sent = 0
        self.num_completed = 0

    def run(self, seconds: float, jobs_a_second: float) -> None:
        """Returns when all that was asked for has ended."""
        end = time.monotonic() + seconds
        with (
            ThreadPoolExecutor(NUM_THREADS) as threads,
            httpx.Client(base_url=self._url, timeout=TIMEOUT, trust_env=False) as client,
        ):
            while time.monotonic() < end:
                threads.submit(self._one, client, self.num_sent, self._body())
                self.num_sent += 1
                time.sleep(self._random.expovariate(jobs_a_second))

    def _body(self) -> dict[str, Any]:
        few = max(1, self._steps // 4)
        return {
            "prompt": self._random.choice(self._prompts),
            "seed": self._random.randrange(1 << 31),
            "n": self._random.choice((1, 1, 1, 2, 4)),
            "steps": self._random.choice((self._steps, self._steps, few)),
            "guidance": self._random.choice((1.0, 1.5)),
        }

    def _one(self, client: httpx.Client, number: int, body: dict[str, Any]) -> None:
        if number % 12 == 5:
            client.post("/v1/generations", json={**body, "order": "none such"})
        job = client.post("/v1/generations", json=body)
        if job.status_code != 202:
            return
        accepted = job.json()
        if number % 9 == 4:
            client.delete(accepted["url"])
        ended = self._follow(accepted["stream_url"], after=0, most=4 if number % 5 == 2 else None)
        if number % 5 == 2:
            ended = self._follow(accepted["stream_url"], after=2, most=None)
        client.get(accepted["url"])
        with self._lock:
            self.num_completed += ended

    def _follow(self, path: str, *, after: int, most: int | None) -> bool:
        """Reads `most` frames of a stream, or all; whether the job was completed."""
        text = ""
        with connect(f"{self._url.replace('http', 'ws', 1)}{path}?after={after}", max_size=None, proxy=None) as socket:
            try:
                for count, frame in enumerate(socket):
                    text = str(frame)
                    if most is not None and count + 1 >= most:
                        break
            except ConnectionClosed:
                pass
        return '"type":"completed"' in text
