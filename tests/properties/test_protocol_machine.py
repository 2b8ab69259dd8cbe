"""Any sequence of submits, takes, writes, crashes, cancels and deadlines keeps the protocol's promises (real Valkey).

The promises: a job that was accepted waits, runs or has ended, and is in the queue exactly as long as it has not; it
has one terminal event and nothing after it; no event but a preview is ever missing; who lost a job writes nothing.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from oar_wire.tenant import OPEN_TENANT
from server.jobs import keys, scripts
from server.jobs.admission import Idempotency
from server.jobs.connection import RedisConnection
from server.jobs.dead import DeadLetters
from server.jobs.embedded import EmbeddedRedis
from server.jobs.events import EventLog, StoredEvent
from server.jobs.job import JobRecord, JobState
from server.jobs.log import Claim, NewEvent
from server.jobs.queue import JobQueue
from server.jobs.sweeper import Sweeper
from server.jobs.worker_queue import Taken, WorkerQueue
from server.settings import Settings
from tests.server.jobs.protocol import TRANSITIONS, ManualClock, end_leases, params

T = TypeVar("T")
WORKERS = ("one", "two", "three")
KINDS = (NewEvent("patches", "{}"), NewEvent("preview", "{}", 0), NewEvent("preview", "{}", 1))
EVENTS = st.lists(st.sampled_from(KINDS), max_size=6)
priorities = st.sampled_from(keys.PRIORITIES)


@dataclass
class Record:
    """What this test knows of a job."""

    priority: str
    number: int  # in the order of submits
    holder: tuple[str, int] | None = None  # worker and epoch that may write
    state: JobState = JobState.QUEUED
    was_given: bool = False
    is_free: bool = True  # any worker may take it, but one that holds it and is taken for dead
    num_lasting: int = 1  # events that are no previews
    attempts: int = 0


class ProtocolMachine(RuleBasedStateMachine):
    url: ClassVar[str]
    claims: Bundle[Claim] = Bundle("claims")
    jobs: Bundle[str] = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.connection = RedisConnection(self.url)
        self.settings = Settings(max_attempts=3, priority_aging_seconds=1e6, lease_seconds=600, sweep_seconds=60)
        self.queue = JobQueue(self.connection, self.settings)
        self.workers = {
            name: WorkerQueue(self.connection, self.settings, name, "tiny", clock=ManualClock()) for name in WORKERS
        }
        self.clock = ManualClock()
        self.sweeper = Sweeper(self.connection, self.settings, clock=self.clock)
        self.held: dict[str, Claim] = {}  # the latest claim of each job
        self.records: dict[str, Record] = {}
        self.do(self.connection.once("FLUSHALL"))
        self.do(self.workers["one"].open())

    def teardown(self) -> None:
        self.do(self.connection.close())
        self.runner.close()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def call(self, call: scripts.ScriptCall) -> Any:
        return self.do(scripts.run_many(self.connection, [call]))[0]

    def load(self, job_id: str) -> JobRecord:
        return self.do(self.queue.load(job_id))

    def may_write(self, claim: Claim, worker: str) -> bool:
        return self.records[claim.job_id].holder == (worker, claim.epoch)

    def end(self, job_id: str, state: JobState) -> None:
        record = self.records[job_id]
        record.state, record.holder, record.is_free = state, None, False
        record.num_lasting += 1

    # what may happen

    @rule(target=jobs, priority=priorities)
    def submit(self, priority: str) -> str:
        job_id = self.do(self.queue.submit(params(priority=priority))).job_id
        self.records[job_id] = Record(priority, len(self.records))
        return job_id

    @rule(priority=priorities)
    def submit_twice(self, priority: str) -> None:
        idempotency = Idempotency(f"key-{len(self.records)}", "request")
        wish = params(priority=priority)
        first, again = (self.do(self.queue.submit(wish, idempotency)) for _ in range(2))
        assert (again.job_id, again.is_replay) == (first.job_id, True)
        self.records[first.job_id] = Record(priority, len(self.records))

    @rule(target=claims, worker=st.sampled_from(WORKERS))
    def take(self, worker: str) -> Any:
        taken = self.do(self.workers[worker]._take())
        free = {
            job_id: record
            for job_id, record in self.records.items()
            if record.is_free and (record.holder is None or record.holder[0] != worker)
        }
        if not isinstance(taken, Taken):
            assert not free
            return self.nothing()
        record = free[taken.job_id]
        # Jobs that were begun before come first; then the highest priority, and the oldest of it.
        assert not any(other.was_given for other in free.values()) or record.was_given
        if not record.was_given:
            assert (record.priority, record.number) == min(
                ((other.priority, other.number) for other in free.values()),
                key=lambda place: (keys.PRIORITIES.index(place[0]), place[1]),
            )
        return self.claim(worker, taken)

    def claim(self, worker: str, taken: Taken) -> Any:
        record = self.records[taken.job_id]
        before = self.load(taken.job_id)
        claim = self.do(self.workers[worker].claim(taken))
        again = self.do(self.workers[worker].claim(taken))
        if claim is not None:
            assert again is not None
            again = replace(again, age=claim.age)
        assert again == claim, "a claim that is repeated is one claim"
        record.was_given, record.is_free = True, False
        if claim is None:
            is_canceled = before.cancel_requested
            assert is_canceled or record.attempts == self.settings.max_attempts
            self.end(taken.job_id, JobState.CANCELED if is_canceled else JobState.FAILED)
            return self.nothing()
        record.num_lasting += claim.epoch == 1  # `started`
        record.attempts += 1
        record.state, record.holder = JobState.RUNNING, (worker, claim.epoch)
        assert (claim.attempt, claim.is_restart) == (record.attempts, claim.epoch > 1)
        return self.hold(claim, worker)

    def nothing(self) -> Any:
        from hypothesis.stateful import multiple

        return multiple()

    def hold(self, claim: Claim, worker: str) -> Any:
        self.owners = {**getattr(self, "owners", {}), (claim.job_id, claim.epoch): worker}
        self.held[claim.job_id] = claim
        return claim

    def owner(self, claim: Claim) -> str:
        return self.owners[claim.job_id, claim.epoch]

    @rule(claim=claims, events=EVENTS)
    def emit(self, claim: Claim, events: list[NewEvent]) -> None:
        worker, seq = self.owner(claim), self.load(claim.job_id).seq
        call = self.workers[worker].calls.emit(claim, seq, events)
        replies = [self.call(call) for _ in range(2)]
        assert replies[0] == replies[1], "a write that is repeated is one write"
        assert (replies[0][0] >= 0) is self.may_write(claim, worker)
        if self.may_write(claim, worker):
            self.records[claim.job_id].num_lasting += sum(event.type != "preview" for event in events)

    @rule(claim=claims, state=st.sampled_from([JobState.COMPLETED, JobState.FAILED, JobState.CANCELED]))
    def finish(self, claim: Claim, state: JobState) -> None:
        worker = self.owner(claim)
        may_write = self.may_write(claim, worker)
        call = self.workers[worker].calls.finish(claim, state, "{}", [b"png"])
        replies = [self.call(call) for _ in range(2)]
        if may_write:
            assert replies == [1, 1]
            self.end(claim.job_id, state)
        else:
            job = self.load(claim.job_id)
            is_repetition = (job.state, job.owner, job.epoch) == (state, worker, claim.epoch)
            assert replies == [1, 1] if is_repetition else [-1, -1]

    @rule(claim=claims)
    def renew(self, claim: Claim) -> None:
        answer = self.call(self.workers[self.owner(claim)].calls.renew(claim))
        assert (answer >= 0) is self.may_write(claim, self.owner(claim))
        if self.may_write(claim, self.owner(claim)):
            self.records[claim.job_id].is_free = False
        assert (answer == 1) is (answer >= 0 and self.load(claim.job_id).cancel_requested)

    @rule(claim=claims)
    def hand_back(self, claim: Claim) -> None:
        worker = self.owner(claim)
        may_write = self.may_write(claim, worker)
        answer = self.call(self.workers[worker].calls.release(claim))
        assert (answer == 1) is may_write
        if may_write:
            record = self.records[claim.job_id]
            record.state, record.holder, record.is_free = JobState.QUEUED, None, True
            record.attempts -= 1

    @rule(claim=claims)
    def lease_runs_out(self, claim: Claim) -> None:
        """Its worker is frozen: it does not know yet, and may write until another one has the job."""
        if self.may_write(claim, self.owner(claim)):
            for worker in self.workers.values():
                self.do(end_leases(worker))
            self.records[claim.job_id].is_free = True
            self.others_renew()

    def others_renew(self) -> None:
        """Those that hold a job and are alive."""
        for job_id, held in self.held.items():
            if self.may_write(held, self.owner(held)) and not self.records[job_id].is_free:
                assert self.call(self.workers[self.owner(held)].calls.renew(held)) >= 0

    @rule(worker=st.sampled_from(WORKERS))
    def worker_is_killed_and_started_again(self, worker: str) -> None:
        for taken in self.do(self.workers[worker].unfinished()):
            claim = self.claim(worker, taken)
            if isinstance(claim, Claim):
                self.hand_back(claim)

    @rule(job_id=jobs)
    def cancel(self, job_id: str) -> None:
        before = self.records[job_id].state
        after = self.do(self.queue.cancel(self.load(job_id)))
        assert after == (JobState.CANCELED if before is JobState.QUEUED else before)
        if before is JobState.QUEUED:
            self.end(job_id, JobState.CANCELED)

    @rule(job_id=jobs)
    def deadline_passes(self, job_id: str) -> None:
        if not self.records[job_id].state.is_terminal:
            self.do(self.connection.once("HSET", keys.job_key(job_id), keys.Field.DEADLINE, 1))
            for _ in range(2):  # a holder has to be seen twice to be taken for dead
                if not self.records[job_id].state.is_terminal:
                    self.do(self.connection.once("ZADD", keys.DUE, 1, job_id))
                self.sweep()
                self.clock.advance(3600)
                self.others_renew()
            # A living worker's job is that worker's to end: the deadline is taken back, as it is not the point here.
            if not self.records[job_id].state.is_terminal:
                self.do(self.connection.once("HSET", keys.job_key(job_id), keys.Field.DEADLINE, 0))

    @rule()
    def sweep(self) -> None:
        self.do(self.sweeper.sweep())
        for (job_id, record), (job, _) in zip(self.records.items(), self.do(self.read_all())):
            state = job.state
            if state is not record.state:
                assert record.is_free, "no worker holds it"
                assert state in TRANSITIONS[record.state]
                self.end(job_id, state)

    # what must hold

    @invariant()
    def every_job_is_where_it_should_be(self) -> None:
        active = Counter(self.do(self.queue.active("tiny")))
        assert active == {job_id: 1 for job_id, record in self.records.items() if not record.state.is_terminal}
        assert self.do(self.queue.depth("tiny")) == active.total()
        due = {name.decode() for name in self.do(self.connection.once("ZRANGE", keys.DUE, 0, -1))}
        assert due <= set(active)
        dead = {letter.job_id for letter in self.do(DeadLetters(self.connection).list())}
        assert all(self.records[job_id].attempts == self.settings.max_attempts for job_id in dead)

    @invariant()
    def what_is_kept_is_counted(self) -> None:
        words = self.do(self.connection.once("HGETALL", keys.storage_key(OPEN_TENANT)))
        counted = {name.decode(): int(value) for name, value in zip(words[::2], words[1::2])}
        total = counted.pop("total", 0)
        counted.pop("next", None)
        assert sum(counted.values()) == total
        reads = [("HGET", keys.job_key(job_id), keys.Field.STORAGE) for job_id in self.records]
        held = sum(int(value or 0) for value in self.do(self.connection.again_many(reads))) if reads else 0
        assert counted.get("active:tiny", 0) == held

    @invariant()
    def every_log_is_sound(self) -> None:
        for (job_id, record), (job, events) in zip(self.records.items(), self.do(self.read_all())):
            assert job.state is record.state, job_id
            seqs = [event.seq for event in events]
            assert seqs == sorted(set(seqs))
            lasting = [event for event in events if event.type != "preview"]
            assert len(lasting) == record.num_lasting, "only previews are ever missing"
            assert len(events) - len(lasting) <= 2, "the newest preview of each image"
            terminal = [event for event in events if event.is_terminal]
            assert [event.type for event in terminal] == ([job.state.value] if job.state.is_terminal else [])
            if terminal:
                assert terminal[0].seq == job.seq == seqs[-1]

    async def read_all(self) -> list[tuple[JobRecord, list[StoredEvent]]]:
        async def read(job_id: str) -> tuple[JobRecord, list[StoredEvent]]:
            return await self.queue.load(job_id), await EventLog(self.connection).read(job_id, count=1000)

        return list(await asyncio.gather(*(read(job_id) for job_id in self.records)))


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("protocol")
    server = EmbeddedRedis(folder)
    server.start()
    yield server.url
    server.stop()


@pytest.mark.hypothesis
def test_the_protocol(redis_url: str) -> None:
    ProtocolMachine.url = redis_url
    run_state_machine_as_test(
        ProtocolMachine,
        settings=hypothesis_settings(
            max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )
