"""A Valkey, an API and workers as processes that can be killed, frozen and started again at will."""

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

from oar_core.engine.config import EngineConfig
from oar_core.engine.engine import Engine
from oar_core.engine.events import SequenceFinished
from oar_core.engine.sequence import KnownTokens
from oar_core.models.model import Model
from oar_wire.events import Patches
from oar_wire.job import GenerationParams
from oar_wire.request import GenerationRequest
from server.api.validation import resolve
from server.jobs.connection import RedisConnection
from server.jobs.embedded import EmbeddedRedis
from server.jobs.events import EventLog, StoredEvent
from server.jobs.job import JobRecord
from server.jobs.queue import JobQueue
from server.jobs.store import OutputStore, Registry
from server.settings import Settings
from server.worker.render import render_pngs
from server.worker.requests import Prompts, read_prompts, sequence_request
from tests.server.live import ROOT
from tests.server.processes import find_processes
from tests.server.tiny import NUM_TOKENS

SCALE = float(os.environ.get("OAR_CHAOS_SCALE", "0.1"))
LEASE_SECONDS = 3.0


def scaled(full: int, least: int = 1) -> int:
    """`full` is what a run of scale 1 does."""
    return max(least, round(full * SCALE))


class Nursery:
    def __init__(self, log: Path) -> None:
        self.log = log
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tests.chaos.nursery", str(log)]
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, settings: Settings, step_seconds: float, die_after: int | None, *, die_late: bool) -> int:
        order = {
            "settings": settings.model_dump(mode="json", exclude_unset=True),
            "step_seconds": step_seconds,
            "die_after": die_after,
            "die_late": die_late,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps(order)}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.kill()  # the kernel takes the workers along
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


class House:
    """One Redis with all that works on it. Workers of one `folder` have one name, one after the other."""

    def __init__(self, folder: Path, weights_dir: Path, nursery: Nursery) -> None:
        self.folder = folder
        self.redis = EmbeddedRedis(folder)
        self.redis.start()
        self._nursery = nursery
        self._workers: list[int] = []
        self._apis: list[subprocess.Popen[bytes]] = []
        self.settings = Settings(  # pyright: ignore[reportCallIssue]: the others come from the environment
            redis_url=self.redis.url,
            weights_dir=weights_dir,
            data_dir=folder / "data",
            lease_seconds=LEASE_SECONDS,
            max_attempts=20,
            command_timeout=2,
            drain_seconds=5,
            queue_depth=100_000,
            threads=1,
            preview_interval=0.05,
            canceled_ttl=3600,  # a run looks at its jobs long after some were canceled
        )
        self.connection = RedisConnection(self.redis.url)
        self.queue = JobQueue(self.connection, self.settings)
        self.log = EventLog(self.connection)
        self.outputs = OutputStore(self.connection)

    async def close(self) -> None:
        for pid in self._workers:
            kill(pid, signal.SIGKILL)
        for api in self._apis:
            api.kill()
            api.wait()
        await self.connection.close()
        await asyncio.to_thread(self.redis.stop)

    def worker(
        self,
        folder: str = "one",
        *,
        step_seconds: float = 0.0,
        die_after: int | None = None,
        die_late: bool = False,
        **changes: Any,
    ) -> int:
        """The process id of a new worker."""
        settings = self.settings.model_copy(update={"data_dir": self.folder / folder, **changes})
        given = Settings.model_construct(_fields_set=self.settings.model_fields_set | changes.keys(), **dict(settings))
        pid = self._nursery.start(given, step_seconds, die_after, die_late=die_late)
        self._workers.append(pid)
        return pid

    @property
    def nursery_log(self) -> Path:
        """What the workers of all houses log."""
        return self._nursery.log

    @property
    def valkey(self) -> int:
        guards = find_processes("server.jobs.guard", str(self.folder))
        (pid,) = set(find_processes("valkey-server", str(self.folder))) - set(guards)
        return pid

    @contextlib.asynccontextmanager
    async def api(self, port: int = 0, **changes: str) -> AsyncIterator["Api"]:
        """`oar api` as a process of its own."""
        api = Api(self, port, changes)
        self._apis.append(await api.start())
        try:
            yield api
        finally:
            api.process.kill()
            api.process.wait()

    async def model_is_known(self) -> None:
        await until(lambda: Registry(self.connection).models())

    async def submit(self, **changes: Any) -> str:
        """Accepts a job as the API would; returns its id."""
        (model,) = await Registry(self.connection).models()
        request = GenerationRequest(**{"prompt": "a red circle", "steps": NUM_TOKENS, **changes})
        params = resolve(request, model, self.settings)
        return (await self.queue.submit(params)).job_id

    async def end_of(self, job_id: str, seconds: float = 60) -> JobRecord:
        async def ended() -> JobRecord | None:
            job = await self.queue.load(job_id)
            return job if job.state.is_terminal else None

        return await until(ended, seconds)

    async def has_patches(self, job_id: str, count: int) -> None:
        async def enough() -> bool:
            return len(await self.log.read_checkpoint(job_id)) >= count

        await until(enough)

    async def pngs(self, job: JobRecord) -> list[bytes | None]:
        found = [await self.outputs.read(job.id, "image", index) for index in range(job.params.n)]
        return [output and output.data for output in found]

    async def sound_log(self, job_id: str) -> list[StoredEvent]:
        """All events of an ended job; raises AssertionError for one that is missing, doubled or after the end."""
        job, events = await self.queue.load(job_id), await self.log.read_all(job_id)
        seqs = [event.seq for event in events]
        assert seqs == sorted(set(seqs))
        assert [event.seq for event in events if event.is_terminal] == [job.seq] == seqs[-1:]
        assert events[-1].type == job.state.value
        if not job.params.previews:
            assert seqs == list(range(1, len(events) + 1))
        if job.state.value == "completed":
            patches = [event for stored in events if isinstance(event := stored.parse(), Patches)]
            for image in range(job.params.n):
                decoded = [patch for event in patches if event.image == image for patch in event.patches]
                assert [patch.rank for patch in decoded] == list(range(NUM_TOKENS))
                assert sorted(patch.position for patch in decoded) == list(range(NUM_TOKENS))
        return events


class Api:
    def __init__(self, house: House, port: int, changes: dict[str, str]) -> None:
        self._house = house
        self._port = port
        self._changes = changes
        self.log = house.folder / "api.log"

    async def start(self) -> subprocess.Popen[bytes]:
        """Again after a kill: on the same port."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "REDIS_URL": self._house.redis.url,
            "OAR_PORT": str(self._port),
            **self._changes,
        }
        offset = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "oar_cli", "api"], env=environment, stderr=log)

        async def address() -> str | None:
            lines = self.log.read_bytes()[offset:].decode().splitlines()
            return next((line.split()[-1] for line in lines if "api listens on" in line), None)

        self.url = await until(address)
        self._port = int(self.url.rpartition(":")[2])

        async def answers() -> bool:
            async with httpx.AsyncClient(base_url=self.url, timeout=5) as client:
                with contextlib.suppress(httpx.TransportError):
                    return (await client.get("/live")).status_code == 200
            return False

        await until(answers)
        return self.process

    async def restart_after_kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._house._apis.append(await self.start())

    def stream_url(self, job_id: str, after: int = 0) -> str:
        return f"{self.url.replace('http', 'ws')}/v1/generations/{job_id}/stream?after={after}"


class Atelier:
    """Paints what a job should become: alone, undisturbed, in this process."""

    def __init__(self, pipeline: Model) -> None:
        self._pipeline = pipeline

    def paint(self, params: GenerationParams) -> list[bytes]:
        """One PNG for each image."""
        prompts = read_prompts(params, self._pipeline)
        return list(render_pngs(self._pipeline, [self._tokens(params, prompts, image) for image in range(params.n)]))

    def _tokens(self, params: GenerationParams, prompts: Prompts, image: int) -> Sequence[int]:
        engine = Engine(self._pipeline.backbone, self._pipeline.unconditional_ids, EngineConfig(2))
        engine.add(sequence_request(params, prompts, "alone", image, KnownTokens()))
        events: list[Any] = []
        while engine.has_work:
            events += engine.step()
        assert isinstance(events[-1], SequenceFinished)
        return events[-1].token_ids


async def until(condition: Callable[[], Any], seconds: float = 60, pause: float = 0.02) -> Any:
    """The first true value of an async condition; a generous guard, for a busy machine."""
    deadline = time.monotonic() + seconds
    while not (value := await condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(pause)
    return value


def kill(pid: int, number: signal.Signals) -> bool:
    """False for one that has gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def waited_for_a_core(pid: int) -> float:
    """Seconds that all threads of a process could have run and did not, as other work had the cores."""
    waits = (path.read_text().split()[1] for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(map(int, waits)) / 1e9


def rss(pid: int) -> int:
    """Resident memory in KiB."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1])


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def dice(seed: int) -> random.Random:
    return random.Random(seed)
