"""Edits on a tiny model with random weights: what stays, what is made anew."""

from pathlib import Path

import numpy as np
import pytest
import torch

from oar_core.errors import RequestError
from oar_core.models.load import load_model
from oar_core.models.model import Model
from oar_core.order.plan import ORDERS, PlanSpec
from oar_core.sampling.edit import Edit, fill_in, masked_patches, opacity, paint_edit
from oar_core.sampling.generate import generate
from oar_core.sampling.sampler import SamplingParams
from tests.server.tiny import NAME, PROMPTS, write_tiny_weights

SIZE, GRID = (16, 20), (4, 5)
PLAN, SAMPLING = PlanSpec(steps=4), SamplingParams(temperature=5.0, guidance=2.0)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder: Path = tmp_path_factory.mktemp("weights")
    write_tiny_weights(folder)
    return load_model(folder / NAME, "cpu", torch.float32)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


MASK = box(5, 6, 13, 14)  # touches rows 1 to 3 and columns 1 to 3 of the grid, none of row 1 and column 1 whole


def decoded_positions(pipeline: Model, edit: Edit, plan: PlanSpec = PLAN) -> list[int]:
    seen: list[int] = []
    requests = edit.requests(pipeline.encode_prompt(PROMPTS[0]), plan, SAMPLING, seed=3)
    generate(
        pipeline.backbone,
        requests,
        pipeline.unconditional_ids,
        on_step=lambda i, step, steps, patches: seen.extend(patch.position for patch in patches),
    )
    return seen


@pytest.mark.parametrize("group_sizes", ["cosine", "adaptive"])
@pytest.mark.parametrize("order", ORDERS)
def test_inpainting_redraws_every_touched_token_and_leaves_every_other_pixel(pipeline, pixels, order, group_sizes):
    edit, plan = Edit.inpaint(pipeline, pixels, MASK), PlanSpec(order=order, steps=4, group_sizes=group_sizes)
    touched = [y * 5 + x for y in (1, 2, 3) for x in (1, 2, 3)]
    assert sorted(decoded_positions(pipeline, edit, plan)) == touched
    (made,) = paint_edit(pipeline, edit, PROMPTS[0], plan, SAMPLING, seed=3)
    assert np.array_equal(made[~MASK], pixels[~MASK])
    assert not np.array_equal(made[MASK], pixels[MASK])


def test_the_pixels_under_the_mask_are_those_of_the_new_tokens(pipeline, pixels):
    edit = Edit.inpaint(pipeline, pixels, MASK)
    requests = edit.requests(pipeline.encode_prompt(PROMPTS[0]), PLAN, SAMPLING, seed=3)
    token_ids = generate(pipeline.backbone, requests, pipeline.unconditional_ids)
    made = edit.finish(pipeline, token_ids)
    assert np.array_equal(made[0][MASK], pipeline.decode(torch.tensor(token_ids))[0][MASK])


def test_what_was_under_the_mask_leaves_no_trace(pipeline, pixels):
    other = pixels.copy()
    other[MASK] = 255 - other[MASK]
    made = [
        paint_edit(pipeline, Edit.inpaint(pipeline, image, MASK), PROMPTS[0], PLAN, SAMPLING, seed=3, feather=2)
        for image in (pixels, other)
    ]
    assert np.array_equal(*made)


def test_a_seed_gives_the_same_versions_and_another_seed_others(pipeline, pixels):
    edit = Edit.inpaint(pipeline, pixels, MASK)
    first, again, other = (
        paint_edit(pipeline, edit, PROMPTS[0], PLAN, SAMPLING, seed=seed, count=3) for seed in (5, 5, 6)
    )
    assert np.array_equal(first, again)
    assert len({picture.tobytes() for picture in (*first, *other)}) == 6


@pytest.mark.parametrize("offset", [(0, 8), (-4, 0), (3, -5)])
def test_outpainting_keeps_the_shifted_picture_and_paints_the_rest(pipeline, pixels, offset):
    edit = Edit.outpaint(pipeline, pixels, offset)
    (made,) = paint_edit(pipeline, edit, PROMPTS[0], PLAN, SAMPLING, seed=1)
    down, right = offset
    for y in range(16):
        for x in range(20):
            inside = 0 <= y - down < 16 and 0 <= x - right < 20
            assert edit.mask[y, x] == (not inside)
            assert not inside or np.array_equal(made[y, x], pixels[y - down, x - right])
    assert set(decoded_positions(pipeline, edit)) == set(np.flatnonzero(masked_patches(edit.mask, GRID)))


def test_a_smaller_picture_is_outpainted_where_it_is_laid(pipeline, pixels):
    small = pixels[:6, :9]
    edit = Edit.outpaint(pipeline, small, (4, 8))
    (made,) = paint_edit(pipeline, edit, PROMPTS[0], PLAN, SAMPLING, seed=1)
    assert np.array_equal(made[4:10, 8:17], small)
    assert edit.mask.sum() == 16 * 20 - 6 * 9


def test_a_variation_redraws_a_share_of_the_region(pipeline, pixels):
    touched = set(np.flatnonzero(masked_patches(MASK, GRID)))
    for strength, count in ((0.01, 1), (0.5, 4), (1.0, 9)):
        edit = Edit.vary(pipeline, pixels, MASK, strength=strength)
        drawn = decoded_positions(pipeline, edit)
        assert len(drawn) == count
        assert set(drawn) <= touched
        (made,) = paint_edit(pipeline, edit, PROMPTS[0], PLAN, SAMPLING, seed=3)
        assert np.array_equal(made[~MASK], pixels[~MASK])
    chosen = {frozenset(decoded_positions(pipeline, Edit.vary(pipeline, pixels, MASK, seed=s))) for s in range(5)}
    assert len(chosen) > 1


def test_a_feather_fades_the_canvas_out_inside_the_mask_only(pipeline, pixels):
    edit = Edit.inpaint(pipeline, pixels, MASK)
    sharp, soft = (
        paint_edit(pipeline, edit, PROMPTS[0], PLAN, SAMPLING, seed=3, feather=feather)[0] for feather in (0, 2)
    )
    assert np.array_equal(soft[~MASK], pixels[~MASK])
    assert np.array_equal(soft[7:11, 8:12], sharp[7:11, 8:12]), "two pixels off the edge nothing fades"
    edge = soft[5, 6:14].astype(float) - (sharp[5, 6:14] / 3 + 2 / 3 * edit.canvas[5, 6:14])
    assert abs(edge).max() <= 1


def test_opacity_rises_from_the_edge_and_the_border_is_none():
    mask = np.zeros((3, 6), dtype=bool)
    mask[:, 2:] = True
    assert opacity(mask, 2).tolist() == [[0, 0, pytest.approx(1 / 3), pytest.approx(2 / 3), 1, 1]] * 3
    assert np.array_equal(opacity(mask, 0), mask)


def test_filling_in_carries_the_surrounding_colours_inwards():
    pixels = np.zeros((4, 6, 3), dtype=np.uint8)
    pixels[:, :1], pixels[:, 1:5], pixels[:, 5:] = 40, 7, 200
    mask = np.zeros((4, 6), dtype=bool)
    mask[:, 1:5] = True
    assert fill_in(pixels, mask)[0, :, 0].tolist() == [40, 40, 40, 200, 200, 200]
    assert np.array_equal(fill_in(pixels, np.ones_like(mask)), np.full_like(pixels, 255))
    assert np.array_equal(fill_in(pixels, np.zeros_like(mask)), pixels)


def test_everything_masked_is_a_picture_from_nothing(pipeline, pixels):
    edit = Edit.inpaint(pipeline, pixels, np.ones(SIZE, dtype=bool))
    assert edit.known.positions == ()
    assert sorted(decoded_positions(pipeline, edit)) == list(range(20))


@pytest.mark.parametrize(
    ("size", "mask", "field"), [((16, 20), np.zeros(SIZE, bool), "mask"), ((16, 16), MASK, "image")]
)
def test_an_edit_that_cannot_be_is_refused(pipeline, size, mask, field):
    with pytest.raises(RequestError) as error:
        Edit.inpaint(pipeline, np.zeros((*size, 3), dtype=np.uint8), mask)
    assert error.value.field == field


@pytest.mark.parametrize("strength", [0.0, 1.5])
def test_an_impossible_strength_is_refused(pipeline, pixels, strength):
    with pytest.raises(RequestError):
        Edit.vary(pipeline, pixels, MASK, strength=strength)
