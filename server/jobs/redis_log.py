"""The job log in Redis: every write stands behind the fence of its claim."""

from collections.abc import Mapping, Sequence

from server.jobs import keys, scripts
from server.jobs.connection import RedisConnection
from server.jobs.events import EventLog
from server.jobs.keys import Field
from server.jobs.log import Checkpoint, Claim, Order, Write
from server.jobs.store import OutputStore
from server.jobs.worker_queue import WorkerQueue


class RedisJobLog:
    def __init__(self, connection: RedisConnection, queues: Mapping[str, WorkerQueue]) -> None:
        """`queues` are the worker's, by model."""
        self._connection = connection
        self._queues = queues
        self._events = EventLog(connection)
        self._outputs = OutputStore(connection)

    async def checkpoint(self, claim: Claim) -> Checkpoint:
        if not claim.is_restart:
            return Checkpoint()
        events = await self._events.read_checkpoint(claim.job_id, claim.base)
        stored = await self._outputs.read_values(claim.job_id) if claim.params.frames else {}
        return Checkpoint(events, {keys.parse_values_field(name): data for name, data in stored.items()})

    async def source(self, claim: Claim) -> bytes | None:
        return await self._outputs.read_source(claim.job_id)

    async def traceparent(self, claim: Claim) -> str:
        trace: bytes | None = await self._connection.again("HGET", keys.job_key(claim.job_id), Field.TRACE)
        return (trace or b"").decode()

    async def write(self, writes: Sequence[Write]) -> list[Order]:
        calls = [call for write in writes for call in self._calls(write)]
        replies = iter(await scripts.run_many(self._connection, calls))
        orders: list[Order] = []
        for write in writes:
            if write.kept:
                next(replies)  # where the job is lost, the next answer says so as well
            seq, order = next(replies)
            # A repeated write finds the job ended; then the answer to the ending counts.
            is_lost = seq < 0 if write.ending is None else next(replies) < 0
            orders.append(Order.LOST if is_lost else Order.GO_ON if write.ending else Order(order))
        return orders

    def _calls(self, write: Write) -> list[scripts.ScriptCall]:
        claim, ending = write.claim, write.ending
        job = self._queues[claim.model].calls
        calls = [job.keep(claim, write.kept)] if write.kept else []
        calls.append(job.emit(claim, write.seq, write.events))
        if ending is not None:
            calls.append(job.finish(claim, ending.state, ending.body, ending.images, is_archived=ending.is_archived))
        return calls

    async def renew(self, claims: Sequence[Claim]) -> list[Order]:
        calls = [self._queues[claim.model].calls.renew(claim) for claim in claims]
        return [Order(answer) for answer in await scripts.run_many(self._connection, calls)] if calls else []

    async def release(self, claims: Sequence[Claim]) -> list[bool]:
        """Hands jobs back, to be taken next. False for those that were lost."""
        calls = [self._queues[claim.model].calls.release(claim) for claim in claims]
        return [answer == 1 for answer in await scripts.run_many(self._connection, calls)] if calls else []

    async def end_lost(self, claim: Claim, seq: int, age: float) -> bool:
        call = self._queues[claim.model].calls.end_lost(claim, seq, age)
        return (await scripts.run_many(self._connection, [call]))[0] == 1
