"""Animation of how a finished picture was painted, as WebP or GIF: made from its events and its PNG, by Pillow alone.

Each frame is one decode step, or several where there are too many for `MAX_FRAMES` or `MAX_PIXELS`. Patches that are
written show their final pixels; the others show the stored preview that was the newest by then, veiled, or a plain
ground. The patches of a frame are framed in it. Pictures that are small are enlarged by a whole factor, and sent
without loss, so that their pixels stay crisp. A token of a sequence has no place in the picture: each frame of such a
picture is the newest preview as it is.
"""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Response
from PIL import Image, ImageDraw

from oar_wire.errors import ImageNotFound, InvalidField, InvalidFormat, NoImage, NotFinished
from oar_wire.events import Partial, Patches, Preview, Restarted
from oar_wire.model import ModelInfo
from server.api import documents
from server.api.deps import Services, Shared
from server.api.etags import is_current, make_etag
from server.api.generations import CACHE_FOR_EVER, ImageIndex, JobId, finished_png
from server.jobs.events import StoredEvent
from server.jobs.job import JobRecord

router = APIRouter(prefix="/v1/generations", tags=["generations"])

PaintingFormat = Literal["webp", "gif"]
MAX_FRAMES = 96
MAX_PIXELS = 12 << 20  # of all frames together: a second of work
MAX_SIDE = 640  # pixels
DEFAULT_SIDE = 320
BLANK_MILLISECONDS, HOLD_MILLISECONDS = 300, 2400
PAINT_MILLISECONDS = 3200  # of all steps together, within the next two
LEAST_MILLISECONDS, MOST_MILLISECONDS = 40, 200
GROUND, MARK = (228, 229, 233), (242, 97, 12)
VEIL = 0.62  # share of the ground over what is not written yet
PALETTE_STRIP = 8  # pixels of the mark in the sample that a palette is made of
VERSION = "2"  # to be changed with the drawing: it is part of the ETag
WEBP_QUALITY = 85  # of pictures that had to be made smaller


@dataclass(frozen=True)
class Guess:
    """A stored preview: the canvas after `written` positions of this picture had been drawn."""

    written: int
    image: Image.Image


@dataclass(frozen=True)
class Painting:
    """The positions that each step of one image wrote, and its previews, oldest first."""

    steps: tuple[tuple[int, ...], ...]
    guesses: tuple[Guess, ...] = ()

    @classmethod
    def read(cls, events: Sequence[StoredEvent], image: int) -> "Painting":
        """Reads the event log of a job that has ended. What a restart threw away is not part of the picture."""
        steps: list[tuple[int, ...]] = []
        canvases: list[Preview | Partial] = []
        for event in (stored.parse() for stored in events if stored.type not in {"queued", "started"}):
            if isinstance(event, Patches) and event.image == image:
                steps.append(tuple(patch.position for patch in event.patches))
            elif isinstance(event, Preview | Partial) and event.image == image:
                canvases.append(event)
            elif isinstance(event, Restarted):
                known = event.known[image] if image < len(event.known) else 0
                steps = _first(steps, known)
                canvases = canvases if known else []
        num_written = sum(map(len, steps))
        guesses = [
            Guess(canvas.known - (canvas.total - num_written), _opened(base64.b64decode(canvas.data)))
            for canvas in canvases
        ]
        return cls(tuple(steps), tuple(sorted(guesses, key=lambda guess: guess.written)))

    @property
    def written(self) -> frozenset[int]:
        return frozenset(position for step in self.steps for position in step)

    def gathered(self, most: int) -> "Painting":
        """Joins neighbours, so that there are at most so many steps."""
        size = -(-len(self.steps) // most) if self.steps else 1
        groups = (self.steps[start : start + size] for start in range(0, len(self.steps), size))
        return Painting(tuple(tuple(position for step in group for position in step) for group in groups), self.guesses)

    def guess(self, written: int) -> Guess | None:
        """The newest preview at a moment."""
        past = [guess for guess in self.guesses if guess.written <= written]
        return past[-1] if past else None


def animate(
    painting: Painting,
    png: bytes,
    grid: tuple[int, int] | None,
    kind: PaintingFormat,
    side: int = DEFAULT_SIDE,
    *,
    is_pixel_art: bool = True,
) -> bytes:
    """`grid` is (h, w) in tokens, None for a sequence; `side` the most pixels that the longest side may have."""
    final = _opened(png)
    if grid is None:
        canvas = _FrameCanvas(final, side, is_pixel_art)
    else:
        canvas = _GridCanvas(final, side, is_pixel_art, grid, painting.written)
    painting = painting.gathered(max(1, min(MAX_FRAMES, MAX_PIXELS // canvas.num_pixels) - 2))
    written = 0
    frames = [canvas.frame(painting.guess(0))]
    for step in painting.steps:
        written += len(step)
        frames.append(canvas.frame(painting.guess(written), step))
    frames.append(canvas.finished())
    pace = min(MOST_MILLISECONDS, max(LEAST_MILLISECONDS, PAINT_MILLISECONDS // max(1, len(painting.steps))))
    durations = [BLANK_MILLISECONDS, *[pace // 10 * 10] * len(painting.steps), HOLD_MILLISECONDS]
    first, *others = _with_one_palette(frames) if kind == "gif" else frames
    buffer = io.BytesIO()
    first.save(
        buffer, kind.upper(), save_all=True, append_images=others, duration=durations, loop=0, **canvas.options(kind)
    )
    return buffer.getvalue()


class _FrameCanvas:
    """Draws the frames of one picture, one after the other: the newest guess as it is."""

    def __init__(self, final: Image.Image, side: int, is_pixel_art: bool) -> None:
        self._size = _fitted(final.size, side)
        self._is_crisp = is_pixel_art and self._size[0] >= final.width
        self._final = self._resized(final)
        self._shown: tuple[Guess | None, Image.Image] = (None, self._ground())

    @property
    def num_pixels(self) -> int:
        return self._size[0] * self._size[1]

    def frame(self, guess: Guess | None, fresh: Sequence[int] = ()) -> Image.Image:  # noqa: ARG002 - they have no places
        """Draws what is known by now; the `fresh` positions have just been written."""
        return self._background(guess)

    def finished(self) -> Image.Image:
        return self._final

    def options(self, kind: PaintingFormat) -> dict[str, Any]:
        if kind == "gif":
            return {"optimize": False, "disposal": 1}
        return {"lossless": True, "method": 2} if self._is_crisp else {"quality": WEBP_QUALITY, "method": 2}

    def _background(self, guess: Guess | None) -> Image.Image:
        """The guess, or what was shown last."""
        if guess is not None and guess is not self._shown[0]:
            self._shown = (guess, self._look(guess))
        return self._shown[1]

    def _look(self, guess: Guess) -> Image.Image:
        return self._resized(guess.image)

    def _ground(self) -> Image.Image:
        return Image.new("RGB", self._size, GROUND)

    def _resized(self, image: Image.Image) -> Image.Image:
        return image.resize(self._size, Image.Resampling.NEAREST if self._is_crisp else Image.Resampling.LANCZOS)


class _GridCanvas(_FrameCanvas):
    """Draws the final pixels of the patches that are written upon the veiled guess."""

    def __init__(
        self, final: Image.Image, side: int, is_pixel_art: bool, grid: tuple[int, int], positions: Iterable[int]
    ) -> None:
        """`positions` will be written; the others of the `grid` are there from the start."""
        super().__init__(final, side, is_pixel_art)
        self._grid = grid
        self._is_written = Image.new("L", (grid[1], grid[0]), 255)
        for position in positions:
            self._is_written.putpixel(self._place(position), 0)

    def frame(self, guess: Guess | None, fresh: Sequence[int] = ()) -> Image.Image:
        """Draws what is written by now, with the `fresh` positions written and framed."""
        for position in fresh:
            self._is_written.putpixel(self._place(position), 255)
        mask = self._is_written.resize(self._size, Image.Resampling.NEAREST)
        frame = Image.composite(self._final, self._background(guess), mask)
        pen = ImageDraw.Draw(frame)
        for position in fresh:
            left, top, right, bottom = self._box(position)
            pen.rectangle((left, top, right - 1, bottom - 1), outline=MARK, width=2 if right - left >= 16 else 1)
        return frame

    def _look(self, guess: Guess) -> Image.Image:
        return Image.blend(super()._look(guess), self._ground(), VEIL)

    def _place(self, position: int) -> tuple[int, int]:
        """Column and row."""
        row, column = divmod(position, self._grid[1])
        return column, row

    def _box(self, position: int) -> tuple[int, int, int, int]:
        """Left, top, right, bottom in pixels."""
        (rows, columns), (width, height) = self._grid, self._size
        column, row = self._place(position)
        left, right = column * width // columns, (column + 1) * width // columns
        return left, row * height // rows, right, (row + 1) * height // rows


def _with_one_palette(frames: Sequence[Image.Image]) -> list[Image.Image]:
    """GIF has 256 colours: those of the finished picture, of a half-done one, and of the marks; without dithering,
    which would make every frame differ everywhere."""
    width, height = frames[-1].size
    sample = Image.new("RGB", (width, 2 * height + PALETTE_STRIP), MARK)
    sample.paste(frames[-1], (0, 0))
    sample.paste(frames[len(frames) // 2], (0, height))
    palette = sample.quantize(256, Image.Quantize.MEDIANCUT)
    return [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]


def _fitted(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Enlarged by a whole factor, or made smaller, so that the longest side is at most `side`."""
    width, height = size
    longest = max(size)
    if longest <= side:
        return width * (side // longest), height * (side // longest)
    return max(1, width * side // longest), max(1, height * side // longest)


def _first(steps: Sequence[tuple[int, ...]], known: int) -> list[tuple[int, ...]]:
    """The first `known` positions, in their steps."""
    kept: list[tuple[int, ...]] = []
    for step in steps:
        part = step[: known - sum(map(len, kept))]
        if not part:
            break
        kept.append(part)
    return kept


def _opened(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as opened:
        return opened.convert("RGB")


@router.get(
    "/{job_id}/images/{index}/painting",
    summary="How a picture was painted, as an animation",
    response_class=Response,
    responses={
        200: {"description": "The animation", "content": {"image/webp": {}, "image/gif": {}}},
        304: {"description": "The client has it already"},
        **documents.errors(
            *documents.JOB,
            *documents.MODEL,
            *documents.PICTURES,
            *(ImageNotFound, NotFinished, NoImage),
            InvalidFormat.make_example("format: Input should be 'webp' or 'gif'"),
            InvalidField("size: Input should be less than or equal to 640", field="size"),
        ),
    },
)
async def painting(
    job_id: JobId,
    index: ImageIndex,
    services: Shared,
    kind: Annotated[PaintingFormat, Query(alias="format", description="What it is encoded as")] = "webp",
    size: Annotated[int, Query(ge=16, le=MAX_SIDE, description="Pixels of the longest side, at most")] = DEFAULT_SIDE,
    if_none_match: Annotated[str | None, Header(description="An ETag; 304 if it still holds")] = None,
) -> Response:
    """A finished picture painting itself again, patch by patch in the order that was chosen. It never changes.

    A picture that was written from coarse to fine is shown as its stored previews, each whole.
    """
    job, png = await finished_png(services, job_id, index)
    info = await services.find_model(job.params.model)
    words = f"{VERSION}:{kind}:{size}:{job.id}:{index}".encode()
    etag = make_etag(png, words)
    headers = {"ETag": etag, "Cache-Control": CACHE_FOR_EVER}
    if is_current(etag, if_none_match):
        return Response(status_code=304, headers=headers)
    content = await _animated(services, job, index, png, info, kind, size)
    name = f"{job_id}-{index}.{kind}"
    headers["Content-Disposition"] = f'inline; filename="{name}"'
    return Response(content, media_type=f"image/{kind}", headers=headers)


async def _animated(
    services: Services, job: JobRecord, index: int, png: bytes, info: ModelInfo, kind: PaintingFormat, size: int
) -> bytes:
    """Raises NoImage where the model of that name has another grid by now."""
    events = await (services.results.events(job) if job.is_archived else services.log.read_all(job.id))

    def animated() -> bytes:
        painting = Painting.read(events, index)
        if any(position >= info.num_tokens for position in painting.written):
            raise NoImage("the model has changed since, and has another grid")
        grid = None if info.is_sequence else info.grid
        return animate(painting, png, grid, kind, size, is_pixel_art=info.pixel_art)

    return await services.threads.animating.run(services.tenant, animated)
