"""`POST /v1/edits`: a generation that starts from a picture, and which of its patches are made anew."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Annotated

from pydantic import Field

from oar_wire.base import Accepted
from oar_wire.request import GenerationRequest

MAX_OFFSET = 1 << 14  # pixels
Pixels = Annotated[int, Field(ge=-MAX_OFFSET, le=MAX_OFFSET)]


class EditSettings(Accepted):
    """Fields of an edit beside those of a generation."""

    offset: Annotated[list[Pixels], Field(min_length=2, max_length=2)] | None = Field(
        None,
        description="Outpaint: pixels down and right to the picture's corner, negative to cut off. "
        "Everything around the picture is drawn",
    )
    strength: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Vary: share of the tokens under the mask that is drawn again; of a sequence, the last",
    )
    feather: int = Field(0, ge=0, le=256, description="Width of the mask's soft edge in pixels")


class EditFields(GenerationRequest, EditSettings):
    """Fields beside the files of a multipart edit."""


class EditRequest(EditFields):
    """The whole edit as JSON; pictures are base64, or `data:` URLs of it."""

    image: str = Field(description="PNG, WebP or JPEG of the model's size; of any size with `offset`")
    mask: str | None = Field(
        None,
        description="PNG or WebP of the same size; pixels of alpha 0 are painted. "
        "Absent: pixels of the image that are not opaque",
    )


def touched_patches(mask: bytes, size: tuple[int, int], grid: tuple[int, int]) -> list[bool]:
    """Tells by position whether a mask touches the patch. `mask` has one byte a pixel, row by row, 0 where nothing
    changes; `size` is (Y, X) in pixels and `grid` (h, w) in patches."""
    (height, width), (rows, columns) = size, grid
    down, right = height // rows, width // columns
    touched = [False] * (rows * columns)
    for row in range(rows * down):
        line = mask[row * width : (row + 1) * width]
        if line.count(0) == width:
            continue
        for column in range(columns):
            if line.count(0, column * right, (column + 1) * right) < right:
                touched[row // down * columns + column] = True
    return touched


def num_redrawn(num_touched: int, strength: float | None) -> int:
    """Number of touched patches that are drawn again: all of them, or a share and at least one."""
    return num_touched if strength is None else max(1, round(strength * num_touched))


def kept_prefix(sizes: Sequence[int], strength: float) -> int:
    """Number of first tokens that a variation of a sequence keeps: whole groups, of which all but a share `strength`
    would be."""
    most = sum(sizes) - num_redrawn(sum(sizes), strength)
    return max((end for end in accumulate(sizes) if end <= most), default=0)


def edit_steps(steps: int, num_drawn: int) -> int:
    """Decode steps where only some positions are drawn: one for each at most."""
    return min(steps, num_drawn)
