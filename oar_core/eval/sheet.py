"""Contact sheets: pictures in rows and columns, enlarged without smoothing."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def contact_sheet(
    images: Sequence[UInt8[np.ndarray, "Y X 3"]], columns: int, *, scale: int = 1, gap: int = 2
) -> Image.Image:
    """`scale` times nearest-neighbour zoom; `gap` pixels of light grey between pictures."""
    height, width = (side * scale for side in images[0].shape[:2])
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), (225, 225, 225))
    for number, pixels in enumerate(images):
        row, column = divmod(number, columns)
        tile = Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height), Image.Resampling.NEAREST)
        sheet.paste(tile, (gap + column * (width + gap), gap + row * (height + gap)))
    return sheet


def side_by_side(
    left: UInt8[np.ndarray, "M Y X 3"], right: UInt8[np.ndarray, "M Y X 3"], *, columns: int = 8, zoom: int = 3
) -> Image.Image:
    """Two contact sheets, one beside the other, in the same arrangement."""
    sheets = [contact_sheet(list(part), columns, scale=zoom) for part in (left, right)]
    gap = 4 * zoom
    joined = Image.new("RGB", (sheets[0].width + gap + sheets[1].width, sheets[0].height), "white")
    joined.paste(sheets[0], (0, 0))
    joined.paste(sheets[1], (sheets[0].width + gap, 0))
    return joined
