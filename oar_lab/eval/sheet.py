"""Contact sheets: enlarged pictures in rows and columns."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def contact_sheet(
    images: Sequence[UInt8[np.ndarray, "Y X 3"]], columns: int, *, scale: int = 1, gap: int = 2, is_crisp: bool = True
) -> Image.Image:
    """Pictures `enlarged`, with `gap` pixels of light grey between them."""
    height, width = (side * scale for side in images[0].shape[:2])
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), (225, 225, 225))
    for number, pixels in enumerate(images):
        row, column = divmod(number, columns)
        tile = enlarged(pixels, scale, is_crisp=is_crisp)
        sheet.paste(Image.fromarray(tile), (gap + column * (width + gap), gap + row * (height + gap)))
    return sheet


def enlarged(pixels: UInt8[np.ndarray, "Y X 3"], scale: int, *, is_crisp: bool) -> UInt8[np.ndarray, "sY sX 3"]:
    """Pixel by pixel, as suits pixel art, or smoothly, as suits photographs."""
    height, width = pixels.shape[:2]
    filtering = Image.Resampling.NEAREST if is_crisp else Image.Resampling.BICUBIC
    return np.array(Image.fromarray(np.ascontiguousarray(pixels)).resize((width * scale, height * scale), filtering))


def side_by_side(
    left: UInt8[np.ndarray, "M Y X 3"],
    right: UInt8[np.ndarray, "M Y X 3"],
    *,
    columns: int = 8,
    zoom: int = 3,
    is_crisp: bool = True,
) -> Image.Image:
    """Two contact sheets, one beside the other, in the same arrangement."""
    sheets = [contact_sheet(list(part), columns, scale=zoom, is_crisp=is_crisp) for part in (left, right)]
    gap = 4 * zoom
    joined = Image.new("RGB", (sheets[0].width + gap + sheets[1].width, sheets[0].height), "white")
    joined.paste(sheets[0], (0, 0))
    joined.paste(sheets[1], (sheets[0].width + gap, 0))
    return joined
