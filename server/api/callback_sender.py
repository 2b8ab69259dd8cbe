"""Tells the callbacks of ended jobs: when they are due, how often they are tried, and how many at a time.

The script that ends a job puts its callback on a list in Redis, so that it is sent however many processes die; each API
process takes what is due. A callback may come twice, with the same `webhook-id`.
"""

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from redis.exceptions import RedisError

from oar_wire.errors import JobExpired, JobNotFound, RedisUnavailable
from oar_wire.tenant import OPEN_TENANT
from server.api.callback_address import Resolver
from server.api.callback_delivery import Callback, CallbackDelivery
from server.api.job_status import status_of
from server.api.links import PictureLinks
from server.jobs import keys
from server.jobs.connection import RedisConnection
from server.jobs.due_list import DueList
from server.jobs.job import JobRecord
from server.jobs.queue import JobQueue
from server.results.store import ResultStore
from server.settings import Settings
from server.tasks import stop_tasks

logger = logging.getLogger(__name__)

MOST_SENDING = 16  # by one process
MOST_OF_A_TENANT = 4
BUSY_SECONDS = 1.0  # after which a tenant's next callback is looked at
HOLD_SECONDS = 60.0  # after which another process may send what this one took
GROWTH = 4.0  # of the time between two attempts
MOST_SECONDS = 6 * 3600.0
GONE = 410  # whoever answers it wants no more


class CallbackSender:
    def __init__(
        self,
        connection: RedisConnection,
        settings: Settings,
        links: PictureLinks,
        results: ResultStore,
        count: Callable[[str], None],
        resolver: Resolver | None = None,
    ) -> None:
        """`count` is told the outcome of each attempt: delivered, failed, given_up."""
        self._connection = connection
        self._settings = settings
        self._results = results
        self._count = count
        self._queue = JobQueue(connection, settings)
        self._sending: set[asyncio.Task[None]] = set()
        self._of_tenants: Counter[str] = Counter()
        self.delivery = CallbackDelivery(links, resolver or Resolver(may_be_private=settings.callback_private))
        self.waiting = DueList(connection, keys.CALLBACKS)

    async def run(self) -> None:
        """Sends until it is cancelled."""
        try:
            while True:
                try:
                    while await self._start_due():
                        pass
                except (RedisUnavailable, RedisError) as error:
                    logger.warning("cannot look for callbacks: %s", error)
                await asyncio.sleep(self._settings.sweep_seconds)
        finally:
            await stop_tasks(self._sending)
            self.delivery.close()

    async def _start_due(self) -> bool:
        """Starts what is due and has room. Returns whether there may be more."""
        room = MOST_SENDING - len(self._sending)
        if not room:
            await asyncio.wait(self._sending, return_when=asyncio.FIRST_COMPLETED)
            return True
        taken = await self.waiting.take(room, HOLD_SECONDS)
        for job_id in taken:
            task = asyncio.create_task(self._send(job_id))
            self._sending.add(task)
            task.add_done_callback(self._on_sent)
        return len(taken) == room

    def _on_sent(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("a callback was not sent, and is looked at again: %s", error)

    async def _send(self, job_id: str) -> None:
        """One attempt. What it raises leaves the callback on its list."""
        words: list[bytes] = await self._connection.again("HGETALL", keys.callback_key(job_id))
        fields = {name.decode(): value.decode() for name, value in zip(words[::2], words[1::2])}
        tenant = fields.get("tenant") or OPEN_TENANT
        if "url" not in fields:  # it has expired
            await self.waiting.remove(job_id)
            self._count("given_up")
            return
        if self._of_tenants[tenant] >= MOST_OF_A_TENANT:
            await self.waiting.postpone(job_id, BUSY_SECONDS)
            return
        self._of_tenants[tenant] += 1
        try:
            await self._attempt(await self._begin(job_id, tenant, fields))
        finally:
            self._of_tenants[tenant] -= 1

    async def _begin(self, job_id: str, tenant: str, fields: Mapping[str, str]) -> Callback:
        """Counts the attempt before it is made. The body is made once: each attempt sends the same."""
        key, body = keys.callback_key(job_id), fields.get("body")
        if body is None:
            body = await self._make_body(job_id, tenant, fields["state"])
            await self._connection.again("HSET", key, "body", body)
        attempts: int = await self._connection.once("HINCRBY", key, "attempts", 1)
        return Callback(job_id, fields["url"], tenant, fields["state"], body, attempts)

    async def _make_body(self, job_id: str, tenant: str, state: str) -> str:
        job = await self._find(job_id, tenant)
        data = {"id": job_id, "status": state} if job is None else _describe(job, self._settings.root_path)
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(job.finished_at if job else None))
        return json.dumps({"type": f"generation.{state}", "timestamp": at, "data": data})

    async def _find(self, job_id: str, tenant: str) -> JobRecord | None:
        """None where the job was purged, or is kept no longer."""
        try:
            return await self._queue.load(job_id)
        except (JobExpired, JobNotFound):
            return await self._results.find(tenant, job_id)

    async def _attempt(self, callback: Callback) -> None:
        outcome = await self.delivery.deliver(callback)
        is_last = callback.attempts >= self._settings.callback_attempts or outcome in {"refused", str(GONE)}
        if outcome == "delivered":
            await self._end(callback, "delivered")
        elif is_last:
            logger.warning(
                "callback given up job=%s attempts=%d outcome=%s", callback.job_id, callback.attempts, outcome
            )
            await self._end(callback, "given_up")
        else:
            self._count("failed")
            logger.info("callback failed job=%s attempts=%d outcome=%s", callback.job_id, callback.attempts, outcome)
            wait = self._settings.callback_retry * GROWTH ** (callback.attempts - 1)
            await self.waiting.postpone(callback.job_id, min(MOST_SECONDS, wait))

    async def _end(self, callback: Callback, outcome: str) -> None:
        await self._connection.again("DEL", keys.callback_key(callback.job_id))
        await self.waiting.remove(callback.job_id)
        self._count(outcome)


def _describe(job: JobRecord, root_path: str) -> dict[str, Any]:
    return status_of(job, root_path).model_dump(mode="json")
