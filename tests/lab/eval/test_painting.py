"""Paintings: the ranks of a picture and the strip that shows them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from oar_core.models.model import Model
from oar_core.order.paths import spiral
from oar_core.order.plan import PlanSpec
from oar_core.sampling.sampler import SamplingParams
from oar_lab.eval.painting import MARK, NAME_HEIGHT, PaintedPicture, paint_picture, rank_map, strip, write_animation


@pytest.fixture
def painting(tiny_pipeline: Model) -> PaintedPicture:
    return paint_picture(tiny_pipeline, "a red square", 3, PlanSpec(order="spiral", steps=5), SamplingParams())


def test_ranks_follow_the_order(tiny_pipeline: Model, painting: PaintedPicture) -> None:
    order = spiral(tiny_pipeline.grid)
    assert [order[rank] for rank in painting.ranks] == list(range(len(order)))


def test_the_map_goes_from_dark_to_light(tiny_pipeline: Model, painting: PaintedPicture) -> None:
    shades = rank_map(tiny_pipeline, painting).astype(int).sum(-1)
    patch = tiny_pipeline.tokenizer.config.patch_size
    by_position = shades[::patch, ::patch].flatten()
    assert (np.diff(by_position[np.argsort(painting.ranks)]) > 0).all()


def test_the_strip_ends_with_the_finished_picture_and_the_map(tiny_pipeline: Model, painting: PaintedPicture) -> None:
    image = np.asarray(strip(tiny_pipeline, painting, num_frames=3, zoom=2))
    height, width = tiny_pipeline.image_size
    assert image.shape == (2 * height + 4, 4 * (2 * width + 2) + 2, 3)
    last = image[2:-2:2, 2 + 2 * (2 * width + 2) :][:, : 2 * width : 2]
    finished = tiny_pipeline.decode(torch.from_numpy(painting.token_ids)[None])[0]
    assert np.array_equal(last, finished)


def test_an_animation_has_a_frame_a_step_and_ends_with_the_pictures(
    tiny_pipeline: Model, painting: PaintedPicture, tmp_path: Path
) -> None:
    """One blank frame before them, and one without marks after them."""
    path = tmp_path / "a.webp"
    write_animation(tiny_pipeline, {"spiral": [painting, painting], "again": [painting]}, path, zoom=2)
    with Image.open(path) as image:
        frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]
    assert [bool((frame == MARK).all(-1).any()) for frame in frames] == [False, *[True] * 5, False]
    height, width = tiny_pipeline.image_size
    last = frames[-1][NAME_HEIGHT + 2 : NAME_HEIGHT + 2 + 2 * height : 2, 2 : 2 + 2 * width : 2]
    finished = tiny_pipeline.decode(torch.from_numpy(painting.token_ids)[None])[0]
    assert np.array_equal(last, finished)


def test_each_position_has_the_step_that_wrote_it(painting: PaintedPicture) -> None:
    by_rank = painting.steps[np.argsort(painting.ranks)]
    assert by_rank[0] == 1
    assert by_rank[-1] == 5
    assert (np.diff(by_rank) >= 0).all()
