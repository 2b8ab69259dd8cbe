"""A job: its states, and its record as read from Redis."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from oar_wire.job import GenerationParams
from oar_wire.tenant import OPEN_TENANT
from server.jobs.keys import Field


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_terminal(self) -> bool:
        return self in TERMINAL


TERMINAL = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELED})


@dataclass(frozen=True)
class JobRecord:
    """The hash of a job. Times are Unix seconds by Redis' clock."""

    id: str
    tenant: str
    state: JobState
    params: GenerationParams
    priority: str
    entry: str
    owner: str
    epoch: int
    attempts: int
    seq: int
    cancel_requested: bool
    created_at: float
    started_at: float | None
    finished_at: float | None
    retry_of: str | None  # the dead job that this one repeats
    warnings: tuple[str, ...]  # sentences about the request
    result: str  # JSON body of the terminal event; empty before
    is_archived: bool = False  # read from the store of results: Redis may hold nothing of it

    @classmethod
    def from_hash(cls, job_id: str, fields: Mapping[str, str]) -> "JobRecord":
        params = GenerationParams.model_validate_json(fields[Field.PARAMS])
        if model_hash := fields.get(Field.MODEL_HASH):
            # The model may have been replaced since the job was accepted: the one that draws it counts.
            params = params.model_copy(update={"model_hash": model_hash})
        return cls(
            id=job_id,
            tenant=fields.get(Field.TENANT) or OPEN_TENANT,
            state=JobState(fields[Field.STATE]),
            params=params,
            priority=fields[Field.PRIORITY],
            entry=fields[Field.ENTRY],
            owner=fields.get(Field.OWNER, ""),
            epoch=int(fields.get(Field.EPOCH, 0)),
            attempts=int(fields.get(Field.ATTEMPTS, 0)),
            seq=int(fields[Field.SEQ]),
            cancel_requested=fields.get(Field.CANCEL) == "1",
            created_at=int(fields[Field.CREATED]) / 1000,
            started_at=_seconds(fields.get(Field.STARTED)),
            finished_at=_seconds(fields.get(Field.FINISHED)),
            retry_of=fields.get(Field.RETRY_OF) or None,
            warnings=tuple(json.loads(fields.get(Field.WARNINGS, "[]"))),
            result=fields.get(Field.RESULT, ""),
        )


def _seconds(milliseconds: str | None) -> float | None:
    return int(milliseconds) / 1000 if milliseconds else None
