"""Animations of finished pictures: what one costs at most."""

import io

import pytest
from PIL import Image

from server.api.painting import MAX_FRAMES, MAX_PIXELS, MAX_SIDE, Painting, animate

GRID = (20, 25)


@pytest.mark.parametrize("side", [160, MAX_SIDE])
def test_an_animation_has_so_many_frames_and_pixels_at_most(side: int) -> None:
    """However many steps the picture has: neighbours are taken together."""
    buffer = io.BytesIO()
    picture = Image.effect_noise((GRID[1], GRID[0]), 100).convert("RGB")
    picture.save(buffer, "PNG")
    painting = Painting(tuple((position,) for position in range(GRID[0] * GRID[1])))
    with Image.open(io.BytesIO(animate(painting, buffer.getvalue(), GRID, "gif", side))) as made:
        frames: int = made.n_frames  # pyright: ignore[reportAttributeAccessIssue]
        assert max(made.size) <= side
        assert frames <= MAX_FRAMES
        assert frames * made.width * made.height <= MAX_PIXELS
        assert frames > min(MAX_FRAMES, MAX_PIXELS // (made.width * made.height)) // 2, "and it uses what it may"
