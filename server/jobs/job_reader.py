"""Reads the records of jobs, and where they stand in the queue."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from oar_wire.errors import JobExpired, JobNotFound
from oar_wire.tenant import OPEN_TENANT, Tenant
from server.jobs import keys, scripts
from server.jobs.connection import RedisConnection
from server.jobs.job import JobRecord
from server.jobs.shared_reads import SharedReads


@dataclass(frozen=True)
class Place:
    """Place of a job at one moment. Work is in row-steps that are left to do."""

    job: JobRecord  # as it was then
    waiting_ahead: int | None  # 0 for one that runs, None for one that has ended
    work_ahead: int
    own_work: int

    @classmethod
    def read(cls, job_id: str, reply: Sequence[Any]) -> "Place":
        """Reads what the scripts `submit` and `look` answer."""
        waiting, ahead, own, facts = reply
        return cls(_parse(job_id, facts), None if waiting < 0 else int(waiting), int(ahead), int(own))


@dataclass(frozen=True)
class _Record:
    """All that is known of an id."""

    job: JobRecord | None
    tombstone: str  # final state and tenant; empty where the job is there or never was


class JobReader:
    """Shares reads of one job at one moment. A `tenant` sees its own jobs alone; None sees all."""

    def __init__(self, connection: RedisConnection, aging_ms: int) -> None:
        self._connection = connection
        self._aging_ms = aging_ms
        self._records: SharedReads[str, _Record] = SharedReads(self._read)
        self._places: SharedReads[str, Sequence[Any]] = SharedReads(self._look)

    async def load(self, job_id: str, tenant: Tenant | None) -> JobRecord:
        """Raises JobExpired when the job is past its keeping time, JobNotFound when it never was, or is not ours."""
        record = await self._records.get(job_id)
        if record.job is not None and _owns(tenant, record.job.tenant):
            return record.job
        lost: bytes | None = None
        if record.job is not None or not record.tombstone:
            lost = await self._connection.again("GET", keys.DATA_LOST)
        raise _absence(tenant, job_id, "" if record.job else record.tombstone, lost)

    async def look(self, job_id: str, tenant: Tenant | None) -> Place:
        """A job and where it stands as of now: jobs of a higher priority may yet overtake it. Raises as `load`."""
        reply = await self._places.get(job_id)
        *place, tombstone, lost = reply
        if place[3] and _owns(tenant, (found := Place.read(job_id, place)).job.tenant):
            return found
        raise _absence(tenant, job_id, "" if place[3] else tombstone.decode(), lost)

    async def load_many(self, job_ids: Sequence[str], tenant: Tenant | None) -> list[JobRecord]:
        """Loads those that are still kept and ours, in one round trip."""
        replies = await self._connection.again_many([("HGETALL", keys.job_key(job_id)) for job_id in job_ids])
        jobs = [_parse(job_id, reply) for job_id, reply in zip(job_ids, replies) if reply]
        return [job for job in jobs if _owns(tenant, job.tenant)]

    async def _read(self, job_id: str) -> _Record:
        reply: list[bytes] = await self._connection.again("HGETALL", keys.job_key(job_id))
        if reply:
            return _Record(_parse(job_id, reply), "")
        tombstone: bytes | None = await self._connection.again("GET", keys.tombstone_key(job_id))
        if tombstone is not None:
            # Its worker may have written between the two reads how a job ended that went with Redis' data.
            reply = await self._connection.again("HGETALL", keys.job_key(job_id))
            if reply:
                return _Record(_parse(job_id, reply), "")
        return _Record(None, (tombstone or b"").decode())

    async def _look(self, job_id: str) -> Sequence[Any]:
        names = [keys.tombstone_key(job_id), keys.DATA_LOST]
        return await scripts.run(self._connection, "look", names, {"id": job_id, "aging_ms": self._aging_ms})


def _absence(tenant: Tenant | None, job_id: str, tombstone: str, lost: bytes | None) -> JobExpired | JobNotFound:
    """Error that says why there is no such job, as far as we may know. `lost` is when Redis lost its data, if it
    has."""
    state, _, owner = tombstone.partition(" ")
    if state and _owns(tenant, owner or OPEN_TENANT):
        return JobExpired(f"job {job_id[:80]} was {state} and is no longer kept")
    hint = f"; Redis lost its data at {_utc(int(lost) / 1000)}, and the jobs of before" if lost else ""
    return JobNotFound(f"there is no job {job_id[:80]!r}{hint}")


def _owns(tenant: Tenant | None, owner: str) -> bool:
    return tenant is None or tenant.name == owner


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _parse(job_id: str, reply: Sequence[bytes]) -> JobRecord:
    """Parses a hash as Redis answers it."""
    words = [word.decode() for word in reply]
    return JobRecord.from_hash(job_id, dict(zip(words[::2], words[1::2])))
