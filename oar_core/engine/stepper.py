"""Steppers begin, advance and report the sequences of one kind of backbone: the engine's only contact with tensors.

A stepper for tokens asks for logits at positions and draws; one for frames denoises values. Everything else, which is
who runs, in which slots and until when, is the engine's and the same for all.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

import torch

from oar_core.engine.config import EngineConfig
from oar_core.engine.events import EngineEvent, SequenceFinished
from oar_core.models.base import Prefix
from oar_core.nn.kv_cache import KVCache
from oar_core.sampling.decode import Slots, StepLoad
from oar_core.sampling.expectation import Expectation


class Request(Protocol):
    """A request, as the engine sees it."""

    @property
    def id(self) -> str: ...

    @property
    def condition_ids(self) -> Prefix: ...

    @property
    def is_guided(self) -> bool:
        """Tells whether it needs a second slot, for what guidance steers away from."""
        ...


class Progress(Protocol):
    """Progress of a sequence, as the scheduler sees it."""

    @property
    def is_complete(self) -> bool: ...

    @property
    def steps(self) -> int: ...

    @property
    def num_steps_left(self) -> int: ...

    def conditions(self, unconditional_ids: tuple[int, ...]) -> tuple[Prefix, ...]:
        """Prefixes that its slots start with."""
        ...

    @property
    def needs_prefill(self) -> bool:
        """Tells whether its slots hold nothing of it yet."""
        ...

    @property
    def owed(self) -> int:
        """Entries that its slots lack before it can go on, those of the latest step aside."""
        ...

    def chunk(self, most: float) -> int:
        """Number of them that the next step takes in: at most `most` if they can be divided so."""
        ...


P = TypeVar("P", bound=Progress)
Held = TypeVar("Held", bound=Progress, covariant=True)
Outcome = TypeVar("Outcome")
Work = TypeVar("Work")
FIRST_SLOTS = 8  # of a cache that grows


class Member(Protocol[Held]):
    """A sequence that runs, as its stepper sees it."""

    @property
    def id(self) -> str: ...

    @property
    def progress(self) -> Held: ...

    @property
    def slots(self) -> Slots: ...

    @property
    def chunk(self) -> int: ...


class Stepper(ABC, Generic[P, Outcome]):
    """`prefill` and `step` are called with sequences that hold slots; `accept` with what `step` made of each."""

    load: StepLoad  # of the latest step

    def __init__(self, cache: KVCache, config: EngineConfig) -> None:
        self._cache = cache
        self._max_slots = config.num_slots
        self._is_deterministic = config.is_deterministic
        self.load = StepLoad()

    @property
    def cache_bytes(self) -> int:
        return self._cache.num_bytes

    @property
    def kernels(self) -> str:
        """Names the kernels that it uses. Others may round differently."""
        return ""

    @abstractmethod
    def begin(self, request: Any) -> P:
        """Raises a RequestError for a request that the model cannot serve."""

    @torch.inference_mode()
    def reserve(self, num_slots: int) -> None:
        """Makes sure that as many slots are there. They double, so that moving them is rare, and stay."""
        if num_slots > self._cache.num_slots:
            self._cache.grow(min(self._max_slots, max(num_slots, 2 * self._cache.num_slots)))

    @abstractmethod
    def prefill(self, sequences: Sequence[Member[P]]) -> None:
        """Fills the slots of sequences that need it."""

    @abstractmethod
    def step(self, sequences: Sequence[Member[P]]) -> list[Outcome]:
        """One step of each sequence, or a chunk of its prefill."""

    @abstractmethod
    def accept(self, sequence: Member[P], outcome: Outcome) -> EngineEvent | None:
        """Takes in what a step made; returns what is to be reported of it."""

    @abstractmethod
    def finish(self, sequence: Member[P]) -> SequenceFinished: ...

    def expect(self, sequence: Member[P]) -> Expectation | None:  # noqa: ARG002
        """Guesses the positions that a sequence has not decoded; None where the model cannot be asked."""
        return None

    def _calls(self, work: Sequence[Work]) -> list[Sequence[Work]]:
        """All in one; or each sequence's by itself, so that no kernel's shape depends on the others."""
        if self._is_deterministic:
            return [[one] for one in work]
        return [work] if work else []
