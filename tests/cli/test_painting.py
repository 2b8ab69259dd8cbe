"""Pictures as text: colours, layout, what is dim and what is coloured, the line of progress."""

import base64
import io
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from oar_cli.painting import (
    EMPTY,
    RANKS,
    Arrangement,
    Ground,
    Pace,
    arrange,
    choose_colours,
    half_blocks,
    join_blocks,
    nearest_256,
    open_picture,
    paint_canvas,
    progress_line,
    rank_colour,
    scale,
)
from oar_client import Canvas, ImageCanvas, Patches, PatchInfo, Preview, Restarted, Started

GRID, SIZE = (2, 4), (8, 16)


def patches(*ranks: tuple[int, int], image: int = 0, step: int = 1, steps: int = 4) -> Patches:
    """Each is a rank and a position."""
    told = tuple(
        PatchInfo(rank=rank, position=position, row=position // 4, col=position % 4, token=0, confidence=0.5)
        for rank, position in ranks
    )
    return Patches(image=image, step=step, steps=steps, patches=told)


def preview(known: int, colour: tuple[int, int, int] = (200, 100, 0), image: int = 0) -> Preview:
    buffer = io.BytesIO()
    Image.new("RGB", SIZE[::-1], colour).save(buffer, "WEBP", lossless=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    return Preview(image=image, known=known, total=8, width=16, height=8, data=data)


@pytest.mark.parametrize(
    ("environment", "is_terminal", "colours"),
    [({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, True, "24bit"), ({"TERM": "xterm"}, True, "256"),
     ({"TERM": "xterm-direct"}, True, "24bit"), ({"TERM": "tmux-256color", "COLORTERM": "24bit"}, True, "24bit"),
     ({"TERM": "dumb", "COLORTERM": "truecolor"}, True, None), ({}, True, None),
     ({"TERM": "xterm", "NO_COLOR": "1"}, True, None), ({"TERM": "xterm", "NO_COLOR": ""}, True, "256"),
     ({"TERM": "xterm", "COLORTERM": "truecolor"}, False, None)],
)  # fmt: skip
def test_colours_are_those_of_the_terminal(environment: dict[str, str], is_terminal: bool, colours: Any) -> None:
    assert choose_colours(environment, is_terminal=is_terminal) == colours


def test_half_blocks_are_the_pixels() -> None:
    picture = Image.new("RGB", (2, 4), (1, 2, 3))
    picture.putpixel((1, 1), (9, 8, 7))
    first, second = half_blocks(picture, "24bit")
    assert first == "\x1b[38;2;1;2;3;48;2;1;2;3m▀\x1b[38;2;1;2;3;48;2;9;8;7m▀\x1b[0m"
    assert second == "\x1b[38;2;1;2;3;48;2;1;2;3m▀▀\x1b[0m", "a colour is said once"


@given(st.tuples(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255)))
@example((36, 48, 117))  # far from all of them: 49 from the nearest
def test_no_other_of_256_colours_is_nearer(colour: tuple[int, int, int]) -> None:
    def distance(code: int) -> int:
        return sum((a - b) ** 2 for a, b in zip(colour, colour_of(code)))

    assert distance(nearest_256(colour)) == min(map(distance, range(16, 256)))


def colour_of(code: int) -> tuple[int, ...]:
    """As xterm defines them: a cube of 216 colours, then 24 greys."""
    if code >= 232:
        return (8 + 10 * (code - 232),) * 3
    levels = (0, 95, 135, 175, 215, 255)
    return tuple(levels[(code - 16) // base % 6] for base in (36, 6, 1))


def test_grey_is_grey() -> None:
    assert [nearest_256((value,) * 3) for value in (0, 128, 255)] == [16, 244, 231]


@given(
    st.integers(1, 16), st.tuples(st.integers(8, 256), st.integers(8, 256)), st.integers(10, 300), st.integers(3, 100)
)
def test_a_layout_fits_into_the_terminal(count: int, size: tuple[int, int], columns: int, lines: int) -> None:
    layout = arrange(count, size, columns, lines)
    assert 1 <= layout.shown <= count
    assert layout.columns * layout.width + 2 * (layout.columns - 1) <= max(columns, layout.width)
    assert layout.rows * layout.height // 2 + layout.rows - 1 <= max(lines, 1)
    assert layout.height % 2 == 0


def test_pictures_stand_side_by_side_as_the_terminal_is_wide() -> None:
    assert arrange(3, (64, 64), 79, 22) == Arrangement(3, 3, 25, 24)
    assert arrange(3, (64, 64), 200, 40) == Arrangement(3, 3, 64, 64)
    assert arrange(1, (16, 20), 80, 22).width == 40, "small ones are enlarged, by whole factors"
    assert arrange(4, (64, 64), 40, 40).rows == 2
    few = arrange(200, (64, 64), 79, 22)
    assert few.shown < 200, "they would be too small"
    lines = join_blocks([["x"] * (few.height // 2)] * few.shown, few, 200)
    assert lines[-1] == f"and {200 - few.shown} more"


def test_before_the_first_preview_ranks_are_shown_as_colours() -> None:
    canvas = ImageCanvas(0)
    canvas.take(patches((0, 0), (7, 5)))
    picture = paint_canvas(canvas, GRID, SIZE)
    assert [picture.getpixel(at) for at in ((0, 0), (5, 5), (15, 0))] == [RANKS[0], RANKS[-1], EMPTY]


def test_ranks_can_be_told_apart_in_256_colours_too() -> None:
    """A ramp over dull colours came out grey there."""
    codes = [nearest_256(rank_colour(rank / 63)) for rank in range(64)]
    assert len(set(codes)) > 8
    assert all(code < 232 for code in codes)
    assert rank_colour(0.5) == RANKS[1]


def test_what_is_a_guess_is_dim_and_what_is_new_is_coloured() -> None:
    canvas = ImageCanvas(0)
    canvas.take(patches((0, 0)))
    canvas.show(preview(1))
    canvas.take(patches((1, 1), step=2))
    picture = paint_canvas(canvas, GRID, SIZE)
    assert picture.getpixel((0, 0)) == (200, 100, 0), "written, and in the preview"
    assert picture.getpixel((15, 7)) not in ((200, 100, 0), EMPTY), "the decoder's guess"
    assert picture.getpixel((4, 0))[0] < 100, "written since"


def test_a_sequence_is_shown_as_its_newest_preview() -> None:
    """Its tokens have no places: none is dim or coloured."""
    canvas = ImageCanvas(0)
    told = [PatchInfo(rank=rank, position=rank, group=rank, place=0, token=0, confidence=0.5) for rank in range(2)]
    canvas.take(Patches(image=0, step=1, steps=8, patches=(told[0],)))
    assert paint_canvas(canvas, (1, 8), SIZE).getcolors() == [(SIZE[0] * SIZE[1], EMPTY)]
    canvas.show(preview(1))
    canvas.take(Patches(image=0, step=2, steps=8, patches=(told[1],)))
    assert paint_canvas(canvas, (1, 8), SIZE).getcolors() == [(SIZE[0] * SIZE[1], (200, 100, 0))]


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def test_an_edit_is_painted_upon_what_it_keeps() -> None:
    red = Image.new("RGB", (16, 8), (200, 0, 0))
    hole = Image.new("RGBA", (16, 8), (0, 0, 0, 255))
    hole.paste((0, 0, 0, 0), (0, 4, 16, 8))
    ground = Ground.of(png(red), png(hole), None, SIZE, num_kept=4)
    canvas = ImageCanvas(0)
    canvas.take(patches((0, 4)))
    picture = paint_canvas(canvas, GRID, SIZE, ground)
    assert [picture.getpixel(at) for at in ((0, 0), (0, 4), (15, 7))] == [(200, 0, 0), RANKS[0], EMPTY]
    canvas.show(preview(5))
    canvas.take(patches((1, 5), step=2))
    picture = paint_canvas(canvas, GRID, SIZE, ground)
    assert [picture.getpixel(at) for at in ((0, 0), (0, 4), (15, 7))] == [(200, 100, 0)] * 3, "nothing is dim"
    assert picture.getpixel((4, 4)) == rank_colour(1 / 7), "it came after the preview of five tokens, four of them kept"
    around = Ground.of(png(red.resize((8, 8))), None, [-4, 4], SIZE, num_kept=2).picture
    assert [around.getpixel(at) for at in ((0, 0), (4, 0), (11, 3), (12, 0), (4, 4))] == [
        EMPTY,
        (200, 0, 0),
        (200, 0, 0),
        EMPTY,
        EMPTY,
    ]
    own = red.convert("RGBA")
    own.putpixel((3, 3), (9, 9, 9, 0))
    assert Ground.of(png(own), None, None, SIZE, num_kept=7).picture.getpixel((3, 3)) == EMPTY


def test_a_picture_is_scaled_to_its_place() -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (20, 16), (9, 9, 9, 255)).save(buffer, "PNG")
    picture = open_picture(buffer.getvalue())
    assert scale(picture, Arrangement(1, 1, 40, 32)).size == (40, 32)
    assert scale(picture, Arrangement(1, 1, 10, 8)).getcolors() == [(80, (9, 9, 9))]


def test_the_line_tells_steps_rank_and_time() -> None:
    canvas, pace = Canvas(2), Pace()
    assert progress_line(canvas, 8, "queued, 3 ahead", None, 80) == "queued, 3 ahead"
    canvas.feed(Started())
    assert progress_line(canvas, 8, "queued, 3 ahead", None, 80) == "painting begins"
    assert pace.left(canvas, 0.0) is None
    canvas.feed(patches((0, 0)))
    assert pace.left(canvas, 10.0) is None, "one step tells no pace"
    canvas.feed(patches((1, 1), (2, 2), step=3))
    left = pace.left(canvas, 12.0)
    assert left == 5.0, "two steps in two seconds, five to go"
    line = progress_line(canvas, 8, "", left, 80)
    assert line == "████████░░░░░░░░░░░░  step 3/8  rank 3/8  0 of 2 drawn  5.0 s left"
    assert len(progress_line(canvas, 8, "", left, 30)) == 30
    canvas.feed(patches((3, 3), step=4))
    canvas.feed(patches((0, 0), step=4, image=1))
    assert progress_line(canvas, 8, "", 0.0, 80).endswith("2 of 2 drawn  finishing")
    canvas.feed(Restarted(attempt=2, known=(0, 0)))
    assert pace.left(canvas, 20.0) is None, "it begins anew"
    canvas.feed(patches((0, 0)))
    assert re.search(r"step 1/8 .* attempt 2", progress_line(canvas, 8, "", None, 80))


def test_the_line_of_a_sequence_tells_the_budget_of_what_is_shown() -> None:
    canvas = Canvas(1)
    token = PatchInfo(rank=0, position=0, group=0, place=0, token=0, confidence=0.5)
    canvas.feed(Patches(image=0, step=1, steps=4, patches=(token,)))
    assert "rank 1/64" in progress_line(canvas, 64, "", None, 80), "nothing is shown yet"
    shown = preview(16).model_copy(update={"total": 64, "width": 64, "height": 64})
    canvas.feed(shown.model_copy(update={"resolution": (22, 22)}))
    assert progress_line(canvas, 64, "", None, 80) == "█████░░░░░░░░░░░░░░░  step 1/4  16 of 64 tokens: 22 px"
    canvas.feed(shown.model_copy(update={"known": 40, "resolution": (49, 33)}))
    assert progress_line(canvas, 64, "", None, 80).endswith("40 of 64 tokens: 49 x 33 px")
    canvas.feed(shown.model_copy(update={"known": 64}))
    assert progress_line(canvas, 64, "", None, 80).endswith("64 of 64 tokens: 64 px")
