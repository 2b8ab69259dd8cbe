"""One picture or video in the engine: what was asked, how far it is, and the phase of its life."""

from enum import Enum, auto
from typing import Generic

from oar_core.engine.stepper import P, Request
from oar_core.sampling.decode import Slots
from oar_core.sampling.request import KnownTokens, SequenceRequest

__all__ = ["KnownTokens", "Phase", "Sequence", "SequenceRequest"]


class Phase(Enum):
    WAITING = auto()
    RUNNING = auto()
    FINISHED = auto()
    ABORTED = auto()


_NEXT_PHASES = {
    Phase.WAITING: {Phase.RUNNING, Phase.ABORTED},
    Phase.RUNNING: {Phase.FINISHED, Phase.ABORTED},
    Phase.FINISHED: set[Phase](),
    Phase.ABORTED: set[Phase](),
}


class Sequence(Generic[P]):
    """Holds slots exactly while it runs."""

    def __init__(self, request: Request, progress: P, *, priority: int = 0) -> None:
        self.request = request
        self.progress = progress
        self.priority = priority
        self.chunk = 0  # tokens of its prefill that the coming step takes in
        self._phase = Phase.WAITING
        self._slots: Slots | None = None

    @property
    def id(self) -> str:
        return self.request.id

    @property
    def phase(self) -> Phase:
        return self._phase

    @property
    def num_slots(self) -> int:
        """Number of slots it needs: a pair under guidance."""
        return 2 if self.request.is_guided else 1

    @property
    def slots(self) -> Slots:
        assert self._slots is not None, f"sequence {self.id} holds no slots while it is {self._phase.name}"
        return self._slots

    @property
    def can_step(self) -> bool:
        """Tells whether the coming step advances it. A prefill that got no chunk waits for the next step."""
        return bool(self.chunk) or not self.progress.owed

    def take_chunk(self, most: float) -> int:
        """The size of the coming step's chunk, which is set here."""
        self.chunk = self.progress.chunk(most)
        return self.chunk

    def start(self, slots: Slots) -> None:
        self._move_to(Phase.RUNNING)
        self._slots = slots

    def end(self, phase: Phase) -> Slots | None:
        """Moves to a terminal phase; hands back the slots that it held, if any."""
        self._move_to(phase)
        slots, self._slots = self._slots, None
        return slots

    def _move_to(self, phase: Phase) -> None:
        if phase not in _NEXT_PHASES[self._phase]:
            raise RuntimeError(f"sequence {self.id} is {self._phase.name} and cannot become {phase.name}")
        self._phase = phase
