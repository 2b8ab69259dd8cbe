"""Pictures in a terminal: half blocks in 24-bit or 256 colours, side by side, with a line of progress below them.

A character cell shows two pixels, one above the other. What is not written yet is dim; what is written and has not come
in a preview yet is coloured by its rank, dark first.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from oar_client import Canvas, ImageCanvas

Colours = Literal["24bit", "256"]
Rgb = tuple[int, int, int]

UPPER_HALF = "▀"
PLAIN = "\x1b[0m"
CLEAR, CLEAR_LINE = "\x1b[2J", "\x1b[K"
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"

GAP = 2  # columns between pictures, and lines
TEXT_LINES = 2  # a blank one and the progress
LEAST_PIXELS = 8  # below which a picture says nothing: fewer are shown then
MOST_SCALE = 4
BAR = 20
EMPTY: Rgb = (38, 38, 38)
RANKS: tuple[Rgb, ...] = ((40, 10, 140), (204, 71, 120), (250, 220, 60))  # from the first one to the last
DIM = 0.6  # of the way to EMPTY, for what the decoder only guesses
CUBE = (0, 95, 135, 175, 215, 255)  # levels of the 256 colours' cube


def choose_colours(environment: Mapping[str, str], *, is_terminal: bool) -> Colours | None:
    """None where nothing is to be painted: no terminal, a dumb one, or NO_COLOR is set."""
    term = environment.get("TERM", "")
    if not is_terminal or environment.get("NO_COLOR") or term in {"", "dumb"}:
        return None
    if environment.get("COLORTERM", "").lower() in {"truecolor", "24bit"} or term.endswith("-direct"):
        return "24bit"
    return "256"


@dataclass(frozen=True)
class Arrangement:
    """Number of pictures shown, number of columns, and their size in pixels: one wide, two high in a cell."""

    columns: int
    shown: int
    width: int
    height: int

    @property
    def rows(self) -> int:
        return -(-self.shown // self.columns)


def arrange(count: int, size: tuple[int, int], columns: int, lines: int) -> Arrangement:
    """The largest pictures that fit into a terminal; where they would be too small, fewer of them.

    `size` is Y, X in pixels. A picture is enlarged by whole factors alone, and made smaller as is needed.
    """
    for shown in range(count, 0, -1):
        fits = [_fit(shown, across, size, columns, lines) for across in range(1, shown + 1)]
        best = max(fits, key=lambda layout: (layout.width * layout.height, layout.columns))
        if min(best.width, best.height) >= min(LEAST_PIXELS, *size) or shown == 1:
            return best
    raise AssertionError("there is no picture")


def _fit(shown: int, across: int, size: tuple[int, int], columns: int, lines: int) -> Arrangement:
    height, width = size
    down = -(-shown // across)
    free_x = (columns - GAP * (across - 1)) // across
    free_y = 2 * ((lines - (down - 1)) // down)
    scale = min(free_x / width, free_y / height)
    scale = min(MOST_SCALE, int(scale)) if scale >= 1 else max(scale, 0.0)
    return Arrangement(across, shown, max(1, int(width * scale)), max(2, int(height * scale) // 2 * 2))


@dataclass(frozen=True)
class Ground:
    """The start of an edit: the picture, empty where it will be painted, and how many of its tokens stay."""

    picture: Image.Image
    num_kept: int

    @classmethod
    def of(
        cls, image: bytes, mask: bytes | None, offset: Sequence[int] | None, size: tuple[int, int], num_kept: int
    ) -> "Ground":
        """`offset` is down and right, of the picture on a canvas of `size`, Y and X in pixels."""
        canvas = Image.new("RGB", (size[1], size[0]), EMPTY)
        with Image.open(io.BytesIO(image)) as opened:
            source = opened.convert("RGBA")
        alpha = source.getchannel("A")
        if mask is not None:
            with Image.open(io.BytesIO(mask)) as opened:
                alpha = opened.convert("RGBA").getchannel("A")
        down, right = offset or (0, 0)
        canvas.paste(source.convert("RGB"), (right, down), alpha.point(lambda value: 255 if value else 0))
        return cls(canvas, num_kept)


def paint_canvas(
    canvas: ImageCanvas, grid: tuple[int, int], size: tuple[int, int], ground: Ground | None = None
) -> Image.Image:
    """A picture in the making, Y x X pixels. On a ground nothing is dim: what is kept is no guess."""
    (rows, columns), (height, width) = grid, size
    shown = canvas.preview.known - (ground.num_kept if ground else 0) if canvas.preview else 0
    picture = _look(canvas, grid, size, ground)
    fresh = (patch for patch in canvas.patches.values() if patch.rank >= shown)
    for patch in fresh:
        if patch.row is None or patch.col is None:  # of a sequence, each tells of the whole picture
            continue
        left, upper = patch.col * width // columns, patch.row * height // rows
        right, lower = (patch.col + 1) * width // columns, (patch.row + 1) * height // rows
        picture.paste(rank_colour(patch.rank / max(1, rows * columns - 1)), (left, upper, right, lower))
    return picture


def _look(canvas: ImageCanvas, grid: tuple[int, int], size: tuple[int, int], ground: Ground | None) -> Image.Image:
    """The latest preview, or what there is before the first one."""
    (rows, columns), (height, width) = grid, size
    empty = Image.new("RGB", (width, height), EMPTY)
    preview = canvas.preview_bytes
    if preview is None:
        return ground.picture.copy() if ground else empty
    picture = open_picture(preview).resize((width, height))
    if ground is not None or canvas.is_sequence:
        return picture
    written = Image.new("L", (columns, rows))
    for position in canvas.patches:
        written.putpixel((position % columns, position // columns), 255)
    mask = written.resize(picture.size, Image.Resampling.NEAREST)
    return Image.composite(picture, Image.blend(picture, empty, DIM), mask)


def open_picture(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as opened:
        return opened.convert("RGB")


def join_blocks(blocks: Sequence[Sequence[str]], layout: Arrangement, count: int) -> list[str]:
    """The lines of all pictures that are shown, row after row of them; of `count`, others may have no room."""
    lines: list[str] = []
    for start in range(0, layout.shown, layout.columns):
        if start:
            lines.append("")
        row = blocks[start : start + layout.columns]
        lines += [(" " * GAP).join(parts) for parts in zip(*row)]
    return [*lines, f"and {count - layout.shown} more"] if count > layout.shown else lines


def scale(picture: Image.Image, layout: Arrangement) -> Image.Image:
    grows = layout.width >= picture.width
    return picture.resize((layout.width, layout.height), Image.Resampling.NEAREST if grows else Image.Resampling.BOX)


def half_blocks(picture: Image.Image, colours: Colours) -> list[str]:
    """A line of text for each two rows of pixels; the picture's height is even."""
    pixels = picture.convert("RGB").tobytes()
    width = picture.width
    lines: list[str] = []
    for row in range(0, picture.height, 2):
        parts: list[str] = []
        known: tuple[str, str] | None = None
        for column in range(width):
            codes = (
                _code(_pixel(pixels, row * width + column), colours, 38),
                _code(_pixel(pixels, (row + 1) * width + column), colours, 48),
            )
            parts.append(UPPER_HALF if codes == known else f"\x1b[{codes[0]};{codes[1]}m{UPPER_HALF}")
            known = codes
        lines.append("".join(parts) + PLAIN)
    return lines


def _pixel(pixels: bytes, index: int) -> Rgb:
    red, green, blue = pixels[3 * index : 3 * index + 3]
    return red, green, blue


def _code(colour: Rgb, colours: Colours, ground: int) -> str:
    if colours == "24bit":
        return f"{ground};2;{colour[0]};{colour[1]};{colour[2]}"
    return f"{ground};5;{nearest_256(colour)}"


def nearest_256(colour: Rgb) -> int:
    """The nearest of the 6x6x6 cube and of the 24 greys."""
    levels = [min(range(6), key=lambda index: abs(CUBE[index] - value)) for value in colour]
    cube = (CUBE[levels[0]], CUBE[levels[1]], CUBE[levels[2]])
    step = min(23, max(0, round((sum(colour) / 3 - 8) / 10)))
    grey = (8 + 10 * step,) * 3
    if _distance(colour, grey) < _distance(colour, cube):
        return 232 + step
    return 16 + 36 * levels[0] + 6 * levels[1] + levels[2]


def _distance(left: Sequence[int], right: Sequence[int]) -> int:
    return sum((a - b) ** 2 for a, b in zip(left, right))


def rank_colour(share: float) -> Rgb:
    """`share` is 0 for the first rank, 1 for the last."""
    first = min(int(share * (len(RANKS) - 1)), len(RANKS) - 2)
    rest = share * (len(RANKS) - 1) - first
    red, green, blue = (round(a + (b - a) * rest) for a, b in zip(RANKS[first], RANKS[first + 1]))
    return red, green, blue


# the line below


@dataclass
class Pace:
    """Estimates the seconds left from the steps done."""

    began_at: float | None = None
    began_step: int = 0

    def left(self, canvas: Canvas, now: float) -> float | None:
        if self.began_at is None or canvas.step < self.began_step:
            if canvas.step:
                self.began_at, self.began_step = now, canvas.step
            return None
        done = canvas.step - self.began_step
        return (canvas.steps - canvas.step) * (now - self.began_at) / done if done else None


def budget(canvas: Canvas) -> str | None:
    """Of what is shown of sequences, the least: "16 of 64 tokens: 22 px". None for pictures whose patches have places,
    and before there is a picture."""
    shown = [image.preview for image in canvas.images if image.is_sequence and image.preview]
    if not shown:
        return None
    least = min(shown, key=lambda preview: preview.known)
    width, height = least.resolution or (least.width, least.height)
    pixels = f"{width} px" if width == height else f"{width} x {height} px"
    return f"{least.known} of {least.total} tokens: {pixels}"


def progress_line(canvas: Canvas, num_drawn: int, waiting: str, left: float | None, width: int) -> str:
    """Bar, steps, rank and time; or what is waited for. No wider than `width`. `num_drawn` tokens make a picture."""
    if not canvas.step:
        return ("painting begins" if canvas.is_started else waiting)[:width]
    full = round(BAR * canvas.step / max(1, canvas.steps))
    parts = [
        "█" * full + "░" * (BAR - full),
        f"step {canvas.step}/{canvas.steps}",
        budget(canvas) or f"rank {canvas.rank}/{num_drawn}",
    ]
    if len(canvas.images) > 1:
        parts.append(f"{canvas.num_drawn} of {len(canvas.images)} drawn")
    if canvas.attempt > 1:
        parts.append(f"attempt {canvas.attempt}")
    if canvas.num_drawn == len(canvas.images):
        parts.append("finishing")
    elif left is not None:
        parts.append(f"{left:.1f} s left")
    return "  ".join(parts)[:width]
