"""Steps of videos: a frame backbone and its cache."""

from collections.abc import Sequence

import torch

from oar_core.engine.config import EngineConfig
from oar_core.engine.events import FrameMade, SequenceFinished
from oar_core.engine.stepper import FIRST_SLOTS, Member, Stepper
from oar_core.models.frames import FrameBackbone
from oar_core.sampling.decode import StepLoad
from oar_core.sampling.frames import Frame, FrameProgress, FrameRequest, frame_step, prefill_frames


class FrameRunner(Stepper[FrameProgress, Frame | None]):
    """Videos of one step may be at different frames, and at different denoising steps of these."""

    @torch.inference_mode()
    def __init__(self, backbone: FrameBackbone, unconditional_ids: tuple[int, ...], config: EngineConfig) -> None:
        super().__init__(backbone.new_cache(min(config.num_slots, FIRST_SLOTS)), config)
        self._backbone = backbone
        self._unconditional_ids = unconditional_ids

    def begin(self, request: FrameRequest) -> FrameProgress:
        return FrameProgress(request, self._backbone.spec)

    def prefill(self, sequences: Sequence[Member[FrameProgress]]) -> None:
        for call in self._calls(sequences):
            videos = [(sequence.progress, sequence.slots, sequence.chunk) for sequence in call]
            prefill_frames(self._backbone, self._cache, videos, self._unconditional_ids)

    def step(self, sequences: Sequence[Member[FrameProgress]]) -> list[Frame | None]:
        self.load = StepLoad()
        guesses: list[Frame | None] = []
        for call in self._calls(sequences):
            rows = [sequence.progress.next_row(sequence.slots, sequence.chunk) for sequence in call]
            guesses += frame_step(self._backbone, self._cache, rows)
            asked = sum(len(row.slots.all) for row in rows if row.sigma is not None)
            self.load.slots += sum(len(row.slots.all) for row in rows)
            self.load.positions += asked * self._backbone.spec.layout.num_places
        return guesses

    def accept(self, sequence: Member[FrameProgress], outcome: Frame | None) -> FrameMade | None:
        progress = sequence.progress
        step, frame = progress.step, progress.accept(outcome)
        if frame is None:
            return None
        return FrameMade(sequence.id, step, progress.steps, len(progress.frames) - 1, frame)

    def finish(self, sequence: Member[FrameProgress]) -> SequenceFinished:
        return SequenceFinished(sequence.id, ())
