"""Steps of pictures of tokens: a backbone and its cache."""

import logging
from collections.abc import Sequence

import torch

from oar_core.engine.config import EngineConfig
from oar_core.engine.events import PatchesDecoded, PatchesRevised, SequenceFinished
from oar_core.engine.static_steps import StaticSteps
from oar_core.engine.stepper import FIRST_SLOTS, Member, Stepper
from oar_core.host_memory import available_memory, in_words
from oar_core.models.base import Backbone, StaticBackbone
from oar_core.nn.packed import NEVER, Packing, can_pack, layout_of, packed_bytes, packed_twin
from oar_core.sampling.decode import DecodedGroup, StepLoad, decode_step
from oar_core.sampling.draw import CompiledDraw, plain_draw
from oar_core.sampling.expectation import Expectation, expect
from oar_core.sampling.prefill import prefill
from oar_core.sampling.progress import PictureProgress, begin_picture
from oar_core.sampling.request import SequenceRequest

logger = logging.getLogger(__name__)


class ModelRunner(Stepper[PictureProgress, DecodedGroup]):
    """The cache takes its dtype and device from the backbone."""

    @torch.inference_mode()
    def __init__(self, backbone: Backbone, unconditional_ids: tuple[int, ...], config: EngineConfig) -> None:
        self._backbone = fastest(backbone, config.packing)
        self._unconditional_ids = unconditional_ids
        static = self._backbone if isinstance(self._backbone, StaticBackbone) else None
        is_static = config.is_static and not config.is_deterministic and static is not None
        # Static steps hold on to all slots at once, and have a last one for scratch.
        super().__init__(
            backbone.new_cache(config.num_slots + 1 if is_static else min(config.num_slots, FIRST_SLOTS)), config
        )
        is_compiled = config.is_compiled and not config.is_deterministic
        self._draw = CompiledDraw(backbone.spec.vocab_size, self._cache.keys.device) if is_compiled else plain_draw
        self._static = StaticSteps(static, self._cache, self._draw) if is_static and static is not None else None

    @property
    def kernels(self) -> str:
        draw = "" if self._draw is plain_draw else "compiled draw"
        steps = "" if self._static is None else "static steps"
        return "; ".join(filter(None, (layout_of(self._backbone), draw, steps)))

    def begin(self, request: SequenceRequest) -> PictureProgress:
        return begin_picture(request, self._backbone)

    def prefill(self, sequences: Sequence[Member[PictureProgress]]) -> None:
        pairs = [
            sequence.progress.prefill_rows(sequence.slots, self._unconditional_ids, sequence.chunk)
            for sequence in sequences
        ]
        for call in self._calls(pairs):
            prefill(self._backbone, self._cache, [row for pair in call for row in pair])

    def step(self, sequences: Sequence[Member[PictureProgress]]) -> list[DecodedGroup]:
        """One group of each sequence, or a chunk of its prefill, all in one step."""
        rows = [sequence.progress.next_row(sequence.slots, sequence.chunk) for sequence in sequences]
        self.load = StepLoad()
        groups = self._static.decode(rows, self.load) if self._static and rows else None
        if groups is not None:
            return groups
        calls = self._calls(rows)
        return [
            group for call in calls for group in decode_step(self._backbone, self._cache, call, self.load, self._draw)
        ]

    def accept(
        self, sequence: Member[PictureProgress], outcome: DecodedGroup
    ) -> PatchesDecoded | PatchesRevised | None:
        progress = sequence.progress
        step, steps, kind = (
            progress.schedule.step,
            progress.steps,
            PatchesRevised if progress.is_revising else PatchesDecoded,
        )
        patches = progress.accept(outcome)
        if progress.is_complete:
            progress.begin_revision()
        return kind(sequence.id, step, steps, patches) if patches else None

    def finish(self, sequence: Member[PictureProgress]) -> SequenceFinished:
        return SequenceFinished(sequence.id, sequence.progress.tokens.by_position)

    def expect(self, sequence: Member[PictureProgress]) -> Expectation | None:
        """Guesses all positions that a running sequence has not decoded."""
        if not self._backbone.spec.has_free_order:
            return None
        return expect(self._backbone, self._cache, sequence.slots.conditional, sequence.progress.tokens.unknown)


def fastest(backbone: Backbone, packing: Packing | None = None) -> Backbone:
    """A network on the CPU with its weights laid out for it, for calls of so many rows; any other as it is.

    Unless told, weights of fp32 stay as they are: which way is quicker depends on the machine. Half precision takes the
    same kernels either way, and laid out it meets few shapes. What is laid out is there twice: where the memory does
    not suffice, weights stay as they are.
    """
    if not can_pack(backbone):
        return backbone
    if packing is None:
        packing = Packing(NEVER if next(backbone.parameters()).dtype is torch.float32 else 1)
    if not packing.is_ever:
        return backbone
    wanted, available = packed_bytes(backbone), available_memory()
    if available is not None and wanted > available:
        logger.warning(
            "weights are not laid out for oneDNN: that takes %s, and %s are available",
            in_words(wanted),
            in_words(available),
        )
        return backbone
    return packed_twin(backbone, packing)
