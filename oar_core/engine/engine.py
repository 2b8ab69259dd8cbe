"""The inference engine: schedule, run, commit. One thread, no network."""

import math
from typing import Any

from oar_core.engine.cache_pool import CachePool
from oar_core.engine.config import EngineConfig
from oar_core.engine.events import EngineEvent, SequenceAborted, SequenceStarted
from oar_core.engine.frame_runner import FrameRunner
from oar_core.engine.model_runner import ModelRunner
from oar_core.engine.scheduler import Scheduler, Sequence
from oar_core.engine.sequence import Phase
from oar_core.engine.stepper import Request, Stepper
from oar_core.errors import ConfigError, RequestError
from oar_core.models.base import Backbone
from oar_core.models.frames import FrameBackbone
from oar_core.sampling.decode import StepLoad
from oar_core.sampling.expectation import Expectation
from oar_core.sampling.request import check_condition


class Engine:
    """Makes many pictures or videos in one loop of steps; sequences join and leave at any step. What a step does for
    each is its `Stepper`'s.

    Invariants: a sequence that was added gets exactly one terminal event (finished or aborted) and nothing after it;
    slots are held by running sequences only; a picture does not depend on what runs beside it.
    """

    def __init__(
        self, backbone: Backbone | FrameBackbone, unconditional_ids: tuple[int, ...], config: EngineConfig
    ) -> None:
        """`unconditional_ids` is the condition prefix that guidance steers away from. Raises ConfigError."""
        _check_memory(backbone, config)
        try:
            check_condition(unconditional_ids, backbone.spec)
        except RequestError as error:
            raise ConfigError(f"unconditional_ids is no condition of this model: {error}") from error
        self._pool = CachePool(config.num_slots)
        self._scheduler = Scheduler(self._pool, math.inf if config.is_deterministic else config.max_prefill)
        self._stepper = stepper_of(backbone, unconditional_ids, config)
        self._unconditional_ids = unconditional_ids
        self._num_prefilled = 0  # tokens, by the latest step
        self.num_stepped = 0  # sequences that the latest step was for
        self._live: dict[str, Sequence] = {}
        self._events: list[EngineEvent] = []

    @property
    def has_work(self) -> bool:
        """Tells whether `step` has anything to do or to report."""
        return bool(self._live or self._events)

    @property
    def num_free_slots(self) -> int:
        return self._pool.num_free

    @property
    def cache_bytes(self) -> int:
        """Size of the slots that were needed so far: they grow with the load, up to what was checked at the start."""
        return self._stepper.cache_bytes

    @property
    def load(self) -> StepLoad:
        """Load of the latest step."""
        return self._stepper.load

    @property
    def kernels(self) -> str:
        """Names the kernels that it uses. Others may round differently."""
        return self._stepper.kernels

    @property
    def num_running(self) -> int:
        return len(self._scheduler.running)

    @property
    def num_waiting(self) -> int:
        return len(self._scheduler.waiting)

    def add(self, request: Request, *, priority: int = 0) -> None:
        """Queues a picture or video; it joins at the next step that has slots for it. Raises RequestError."""
        if request.id in self._live:
            raise RequestError(f"sequence {request.id} is already in the engine", field="id")
        sequence = Sequence(request, self._stepper.begin(request), priority=priority)
        self._live[request.id] = sequence
        self._scheduler.add(sequence)

    def abort(self, sequence_id: str) -> bool:
        """Ends a sequence now; the next step reports it. False where no such sequence is waiting or running."""
        sequence = self._live.get(sequence_id)
        if sequence is None:
            return False
        self._end(sequence, Phase.ABORTED)
        self._events.append(SequenceAborted(sequence_id))
        return True

    def expect(self, sequence_id: str) -> Expectation | None:
        """Guesses the undecoded positions of a running picture, at the cost of a query
        of each, and changes nothing. The tokens of the latest step do not count in it yet. None where no such picture
        is running, or the model cannot be asked so."""
        sequence = self._live.get(sequence_id)
        if sequence is None or sequence.phase is not Phase.RUNNING:
            return None
        return self._stepper.expect(sequence)

    def step(self) -> list[EngineEvent]:
        """Admits what fits, decodes one group of every running sequence, and reports what happened since the last step.

        Where the model fails, its exception is raised, all running sequences are aborted (the next step reports it) and
        the waiting ones stay: a failed pass leaves cache entries that nothing may be built on.
        """
        try:
            sequences = self._schedule()
            self.num_stepped = len(sequences)
            self._commit(sequences, self._stepper.step(sequences))
            self.load.prefilled = self._num_prefilled
        except BaseException:
            for sequence in tuple(self._scheduler.running):
                self.abort(sequence.id)
            raise
        events, self._events = self._events, []
        return events

    def forecast(self) -> dict[str, int]:
        """After how many more steps each live sequence will be finished if nothing else arrives or leaves."""
        return self._scheduler.forecast()

    def _schedule(self) -> list[Sequence]:
        """Admits and prefills; returns the sequences that decode in this step."""
        admitted = self._scheduler.admit()
        self._events += [SequenceStarted(sequence.id, sequence.progress.steps) for sequence in admitted]
        self._num_prefilled = sum(sequence.chunk for sequence in self._scheduler.running)
        for sequence in admitted:
            if sequence.progress.is_complete:
                self._finish(sequence)
        begun = [sequence for sequence in self._scheduler.running if sequence.progress.needs_prefill]
        self._num_prefilled += sum(self._num_condition_ids(sequence) for sequence in begun)
        self._stepper.reserve(self._pool.num_reached)
        self._stepper.prefill(begun)
        for sequence in begun:
            sequence.chunk = 0  # it is in the cache
        return [sequence for sequence in self._scheduler.running if sequence.can_step]

    def _num_condition_ids(self, sequence: Sequence) -> int:
        conditions = sequence.progress.conditions(self._unconditional_ids)
        return sum(len(ids) for ids in conditions[: sequence.num_slots])

    def _commit(self, sequences: list[Sequence], outcomes: list[Any]) -> None:
        for sequence, outcome in zip(sequences, outcomes):
            event = self._stepper.accept(sequence, outcome)
            if event is not None:
                self._events.append(event)
            if sequence.progress.is_complete:
                self._finish(sequence)

    def _finish(self, sequence: Sequence) -> None:
        self._end(sequence, Phase.FINISHED)
        self._events.append(self._stepper.finish(sequence))

    def _end(self, sequence: Sequence, phase: Phase) -> None:
        del self._live[sequence.id]
        self._scheduler.end(sequence, phase)


def stepper_of(
    backbone: Backbone | FrameBackbone, unconditional_ids: tuple[int, ...], config: EngineConfig
) -> Stepper[Any, Any]:
    if isinstance(backbone, FrameBackbone):
        return FrameRunner(backbone, unconditional_ids, config)
    return ModelRunner(backbone, unconditional_ids, config)


def _check_memory(backbone: Backbone | FrameBackbone, config: EngineConfig) -> None:
    if config.max_cache_bytes is None:
        return
    num_slots = config.num_slots + config.is_static  # with the scratch slot
    slot_bytes = backbone.new_cache(1).num_bytes
    if num_slots * slot_bytes > config.max_cache_bytes:
        needed, allowed = (f"{count / 2**20:.1f} MiB" for count in (num_slots * slot_bytes, config.max_cache_bytes))
        raise ConfigError(
            f"{num_slots} cache slots need {needed} and the cache may take {allowed}, "
            f"which is enough for {config.max_cache_bytes // slot_bytes} slots"
        )
