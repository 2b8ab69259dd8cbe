"""Results in files: TENANT/JOB/EPOCH-KIND-INDEX.TYPE, beside `events.json.gz` and, written last, `record.json`.

A tenant's name is a part of each path, and whoever asks is asked for its own: nobody reads another tenant's results.
"""

import asyncio
import gzip
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from oar_wire.errors import ResultsUnavailable
from oar_wire.outputs import OutputData, OutputKind
from server.jobs.connection import RedisConnection
from server.jobs.events import StoredEvent
from server.jobs.job import JobRecord
from server.jobs.keys import Field
from server.jobs.store import OutputStore
from server.results.files import Files, StoreFault
from server.results.store import Archive, ResultKey, RunInThread

logger = logging.getLogger(__name__)

RECORD, EVENTS = "record.json", "events.json.gz"
JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")
TYPES = {"image/png": "png", "image/webp": "webp"}
MEDIA_TYPES: Mapping[OutputKind, str] = {"image": "image/png", "frame": "image/png", "video": "image/webp"}
NUM_THREADS = 8  # of a process; further calls wait
RETRY_SECONDS = 5
FORMAT = 1  # of the record and the events

T = TypeVar("T")


class StoredResults:
    is_apart = True

    def __init__(self, files: Files, connection: RedisConnection) -> None:
        self.files = files
        self._outputs = OutputStore(connection)
        self._threads = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="results")
        self._run: RunInThread = self._run_here

    def of(self, run: RunInThread) -> "StoredResults":
        view = copy(self)
        view._run = run
        return view

    async def check(self) -> None:
        await self._call(self.files.check)

    async def save(self, key: ResultKey, outputs: Sequence[OutputData]) -> Sequence[OutputData]:
        await asyncio.gather(
            *(
                self._call(partial(self.files.write, output_name(key, output.kind, output.index), output.data))
                for output in outputs
            )
        )
        return ()

    async def read(self, job: JobRecord, kind: OutputKind, index: int) -> OutputData | None:
        """Looks into Redis too, which has frames until they are archived, and what was made with another store."""
        if not job.is_archived and (kind == "frame" or not job.state.is_terminal):
            found = await self._outputs.read(job.id, kind, index)
            if found is not None:
                return found
        if not job.state.is_terminal:
            return None
        folder = _folder(job.tenant, job.id)
        name = output_name(ResultKey(job.tenant, job.id, job.epoch), kind, index)

        def read() -> bytes | None:
            data = self.files.read(name)
            if data is not None:
                self.files.note_use(folder)
            return data

        data = await self._call(read)
        if data is not None:
            return OutputData(kind, index, MEDIA_TYPES[kind], data)
        return None if job.is_archived else await self._outputs.read(job.id, kind, index)

    async def find(self, tenant: str, job_id: str) -> JobRecord | None:
        if not JOB_ID.fullmatch(job_id):
            return None
        data = await self._call(lambda: self.files.read(f"{_folder(tenant, job_id)}/{RECORD}"))
        return None if data is None else parse_record(tenant, job_id, data)

    async def events(self, job: JobRecord) -> Sequence[StoredEvent]:
        data = await self._call(lambda: self.files.read(f"{_folder(job.tenant, job.id)}/{EVENTS}"))
        return () if data is None else await self._call(lambda: _unpack_events(job.id, data))

    async def archive(self, job: Archive) -> None:
        folder, key = _folder(job.tenant, job.job_id), ResultKey(job.tenant, job.job_id, int(job.fields[Field.EPOCH]))
        record = {"format": FORMAT, "id": job.job_id, "fields": dict(job.fields)}

        def write() -> None:
            for output in job.outputs:
                self.files.write(output_name(key, output.kind, output.index), output.data)
            self.files.write(f"{folder}/{EVENTS}", _pack_events(job.events))
            self.files.write(f"{folder}/{RECORD}", json.dumps(record).encode())

        await self._call(write)

    async def delete(self, tenant: str, job_id: str) -> None:
        if JOB_ID.fullmatch(job_id):
            await self._call(lambda: self.files.delete(_folder(tenant, job_id)))

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def _call(self, work: Callable[[], T]) -> T:
        """Raises ResultsUnavailable; the log has the details, which are not the client's."""
        try:
            return await self._run(work)
        except StoreFault as error:
            logger.warning("results: %s", error)
            raise ResultsUnavailable(retry_after=RETRY_SECONDS) from error

    async def _run_here(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def parse_record(tenant: str, job_id: str, data: bytes) -> JobRecord:
    """Reads a `record.json`."""
    fields: dict[str, str] = json.loads(data)["fields"]
    return replace(JobRecord.from_hash(job_id, fields), tenant=tenant, is_archived=True)


def _folder(tenant: str, job_id: str) -> str:
    return f"{tenant}/{job_id}"


def output_name(key: ResultKey, kind: OutputKind, index: int) -> str:
    suffix = TYPES[MEDIA_TYPES[kind]]
    return f"{_folder(key.tenant, key.job_id)}/{key.epoch}-{kind}-{index}.{suffix}"


def _pack_events(events: Sequence[StoredEvent]) -> bytes:
    rows = [[event.seq, event.type, event.at, event.body] for event in events]
    return gzip.compress(json.dumps(rows).encode(), compresslevel=1, mtime=0)


def _unpack_events(job_id: str, data: bytes) -> list[StoredEvent]:
    rows: list[list[Any]] = json.loads(gzip.decompress(data))
    return [StoredEvent(job_id, seq, kind, at, body) for seq, kind, at, body in rows]
