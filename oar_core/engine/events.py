"""Events of the engine: one type per outcome, emitted by `Engine.step` in the order of happening."""

from dataclasses import dataclass

from oar_core.sampling.frames import Frame
from oar_core.sampling.progress import Patch

__all__ = [
    "EngineEvent",
    "FrameMade",
    "Patch",
    "PatchesDecoded",
    "PatchesRevised",
    "SequenceAborted",
    "SequenceFinished",
    "SequenceStarted",
]


@dataclass(frozen=True)
class SequenceStarted:
    sequence_id: str
    steps: int  # decode steps this sequence will take; an upper bound for adaptive group sizes


@dataclass(frozen=True)
class PatchesDecoded:
    sequence_id: str
    step: int  # counts from 1
    steps: int  # the upper bound after this step, which the last step reaches, for adaptive group sizes
    patches: tuple[Patch, ...]


@dataclass(frozen=True, eq=False)
class FrameMade:
    sequence_id: str
    step: int  # that finished it; counts from 1
    steps: int
    number: int  # of the frame in its video, counted from 0
    values: Frame


@dataclass(frozen=True)
class PatchesRevised:
    """Tokens of a whole picture that were drawn again; `rank` counts them alone."""

    sequence_id: str
    step: int  # of the revision, counts from 1
    steps: int
    patches: tuple[Patch, ...]


@dataclass(frozen=True)
class SequenceFinished:
    sequence_id: str
    token_ids: tuple[int, ...]  # in grid order, known tokens included; of frames, each of which was reported, none


@dataclass(frozen=True)
class SequenceAborted:
    sequence_id: str


EngineEvent = SequenceStarted | PatchesDecoded | PatchesRevised | FrameMade | SequenceFinished | SequenceAborted
