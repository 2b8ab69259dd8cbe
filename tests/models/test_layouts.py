"""Layouts: what code above the families asks in place of a grid."""

from dataclasses import replace

import pytest
import torch

from oar_core.engine.config import EngineConfig
from oar_core.engine.engine import Engine
from oar_core.engine.events import SequenceFinished
from oar_core.models.base import BackboneSpec, FramesLayout, GridLayout, SequenceLayout
from oar_core.models.load import load_model
from oar_core.order.plan import PlanSpec
from oar_core.sampling.request import SequenceRequest
from oar_core.sampling.sampler import SamplingParams
from oar_wire.model import GenerationDefaults, LayoutInfo, ModelInfo
from oar_wire.options import BadOption
from tests.engine.backbones import TINY, UNCONDITIONAL, HashBackbone
from tests.server.tiny import NAME, write_tiny_weights

GROUPS = (1, 3, 6, 10)


class CoarseToFine(HashBackbone):
    """A backbone whose tokens are a sequence."""

    @property
    def spec(self) -> BackboneSpec:
        return replace(super().spec, layout=SequenceLayout(GROUPS))


def card(**facts: object) -> ModelInfo:
    stored = {"name": "m", "grid": (4, 5), "image_size": (8, 10), "orders": ("raster",), "group_sizes": ("cosine",)}
    return ModelInfo.model_validate({**stored, "defaults": GenerationDefaults(), **facts})


def test_a_layout_says_how_much_there_is_and_where() -> None:
    grid, sequence, frames = GridLayout(4, 5), SequenceLayout(GROUPS), FramesLayout(8, 6, 7, 2)
    assert (grid.num_tokens, grid.place(7), grid.extent) == (20, (1, 2), (4, 5))
    assert (sequence.num_tokens, sequence.place(7), sequence.extent) == (20, (0, 7), GROUPS)
    assert (frames.num_places, frames.frame_shape, frames.extent) == (42, (2, 6, 7), (8, 6, 7))
    assert (grid.can_edit, sequence.can_edit, frames.can_edit) == (True, False, False)


def test_a_sequence_is_written_from_its_first_token_on() -> None:
    backbone = CoarseToFine()
    engine = Engine(backbone, UNCONDITIONAL, EngineConfig(4))
    engine.add(SequenceRequest("a", (1,), 3, 0, PlanSpec("raster", 5), SamplingParams()))
    events = []
    while engine.has_work:
        events += engine.step()
    (end,) = [event for event in events if isinstance(event, SequenceFinished)]
    assert len(end.token_ids) == 20
    assert all(0 <= token < TINY.vocab_size for token in end.token_ids)


def test_a_model_of_a_sequence_has_one_order_and_no_edits(tmp_path) -> None:
    write_tiny_weights(tmp_path)
    model = load_model(tmp_path / NAME, "cpu", torch.float32)
    assert len(model.orders) > 8
    assert model.backbone.spec.can_edit
    model.backbone = CoarseToFine()
    assert model.orders == ("raster",)
    assert not model.backbone.spec.can_edit


def test_a_card_without_these_words_is_of_pictures_on_a_grid() -> None:
    model = card()
    assert model.known_layout == LayoutInfo(kind="grid", shape=(4, 5))
    assert (model.outputs, model.num_frames, model.can_edit, model.has_previews) == (("image",), 0, True, True)
    model.check_edits()
    model.check_makes("image")


def test_what_a_sequence_cannot_is_said_in_its_words() -> None:
    model = card(layout={"kind": "sequence", "shape": GROUPS}, can_edit=False)
    with pytest.raises(BadOption, match="m writes pictures from coarse to fine, and can keep no part of one") as told:
        model.check_edits()
    assert (told.value.kind.code, told.value.field) == ("unsupported_by_model", "model")
    with pytest.raises(BadOption, match="POST /v1/generations takes it"):
        model.check_makes("video")
