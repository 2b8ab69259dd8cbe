"""Writes of a worker about the jobs that it has claimed, as calls of scripts: every write stands behind a fence."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

from server.jobs import keys, scripts
from server.jobs.durations import lifetimes, milliseconds
from server.jobs.job import JobState
from server.jobs.keys import Field
from server.jobs.log import LOST, Claim, Kept, NewEvent
from server.settings import Settings

ARCHIVE_WAIT_MS = 7 * 86400 * 1000  # that a completed job waits in Redis for the store of results


class JobCalls:
    """Several calls can go to Redis in one round trip."""

    def __init__(self, settings: Settings, worker: str) -> None:
        self._settings = settings
        self._worker = worker

    def release(self, claim: Claim) -> scripts.ScriptCall:
        """Hands the job back, to be taken next. Answers 1, or -1 when lost."""
        return scripts.ScriptCall(scripts.script("release"), _keys_of(claim), self._fence(claim))

    def renew(self, claim: Claim) -> scripts.ScriptCall:
        """Answers 0 go on, 1 cancel, 2 too late, or -1 lost."""
        return scripts.ScriptCall(scripts.script("renew"), _keys_of(claim), self._fence(claim))

    def emit(self, claim: Claim, seq: int, events: Sequence[NewEvent]) -> scripts.ScriptCall:
        """Writes events after number `seq`. Answers [seq or -1 when lost, as `renew`]."""
        heads = [{"type": event.type, "image": event.image, "steps": event.steps} for event in events]
        args = {**self._fence(claim), "seq": seq, "events": heads}
        return scripts.ScriptCall(scripts.script("emit"), _keys_of(claim), args, [event.body for event in events])

    def keep(self, claim: Claim, kept: Sequence[Kept]) -> scripts.ScriptCall:
        """Stores what events speak of. Answers 1, or -1 when lost."""
        names = [*_keys_of(claim), keys.outputs_key(claim.job_id), keys.values_key(claim.job_id)]
        items = [{"field": item.field, "is_output": item.is_output} for item in kept]
        args = {**self._fence(claim), "items": items}
        return scripts.ScriptCall(scripts.script("keep"), names, args, [item.data for item in kept])

    def finish(
        self, claim: Claim, state: JobState, body: str, images: Sequence[bytes] = (), *, is_archived: bool = False
    ) -> scripts.ScriptCall:
        """Ends the job with its terminal event and its PNGs; one that `is_archived` waits in Redis until it is. Answers
        1, or -1 when lost."""
        names = [*_keys_of(claim), *(keys.image_key(claim.job_id, index) for index in range(len(images)))]
        args = {
            **self._fence(claim),
            "state": state.value,
            "body": body,
            "archive": is_archived,
            **lifetimes(self._settings),
            **({"result_ms": ARCHIVE_WAIT_MS} if is_archived else {}),
        }
        return scripts.ScriptCall(scripts.script("finish"), names, args, images)

    def end_lost(self, claim: Claim, seq: int, age: float) -> scripts.ScriptCall:
        """Ends a job as failed if Redis knows nothing of it any more. `seq` numbers the terminal event; nobody has seen
        a higher one. Answers 1, or 0 where Redis knows of it."""
        fields: dict[str, str] = {
            "id": claim.job_id,
            Field.MODEL: claim.model,
            Field.TENANT: claim.tenant,
            Field.PRIORITY: claim.priority,
            Field.PARAMS: claim.params.model_dump_json(),
            Field.ATTEMPTS: str(claim.attempt),
            Field.EPOCH: str(claim.epoch),
        }
        args = {
            "seq": seq,
            "body": LOST.body(),
            "age_ms": milliseconds(age),
            "fields": list(chain.from_iterable(fields.items())),
            **lifetimes(self._settings),
        }
        return scripts.ScriptCall(scripts.script("lost"), _keys_of(claim), args)

    def _fence(self, claim: Claim) -> dict[str, Any]:
        return {"worker": self._worker, "epoch": claim.epoch}


def _keys_of(claim: Claim) -> list[str]:
    return keys.job_keys(claim.job_id, claim.model, claim.priority)
