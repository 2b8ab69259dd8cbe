"""Steps of videos: a frame backbone and its cache."""

from collections.abc import Sequence

import torch

from oar_core.engine.config import EngineConfig
from oar_core.engine.events import FrameMade, SequenceFinished
from oar_core.engine.model_runner import FIRST_SLOTS
from oar_core.engine.stepper import Member, Stepper
from oar_core.models.frames import FrameBackbone
from oar_core.sampling.decode import StepLoad
from oar_core.sampling.frames import Frame, FrameProgress, FrameRequest, frame_step, prefill_frames


class FrameRunner(Stepper[FrameProgress, Frame | None]):
    """Videos of one step may be at different frames, and at different denoising steps of these."""

    @torch.inference_mode()
    def __init__(self, backbone: FrameBackbone, unconditional_ids: tuple[int, ...], config: EngineConfig) -> None:
        self._backbone = backbone
        self._unconditional_ids = unconditional_ids
        self._is_deterministic = config.is_deterministic
        self._max_slots = config.num_slots
        self._cache = backbone.new_cache(min(config.num_slots, FIRST_SLOTS))
        self.load = StepLoad()

    @property
    def cache_bytes(self) -> int:
        return self._cache.num_bytes

    def begin(self, request: FrameRequest) -> FrameProgress:
        return FrameProgress(request, self._backbone.spec)

    @torch.inference_mode()
    def reserve(self, num_slots: int) -> None:
        """They double, so that moving them is rare, and stay."""
        if num_slots > self._cache.num_slots:
            self._cache.grow(min(self._max_slots, max(num_slots, 2 * self._cache.num_slots)))

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

    def _calls(self, sequences: Sequence[Member[FrameProgress]]) -> list[Sequence[Member[FrameProgress]]]:
        """All in one; or each video by itself, so that no kernel's shape depends on the others."""
        if self._is_deterministic:
            return [[sequence] for sequence in sequences]
        return [sequences] if sequences else []
