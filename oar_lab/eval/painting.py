"""The painting of one picture: its canvas at some steps, and the rank of each position."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image, ImageDraw

from oar_core.models.model import Model
from oar_core.order.plan import PlanSpec
from oar_core.sampling.generate import generate
from oar_core.sampling.progress import Patch
from oar_core.sampling.request import SequenceRequest
from oar_core.sampling.sampler import SamplingParams
from oar_lab.eval.sheet import contact_sheet, enlarged

STEP_MILLISECONDS, HOLD_MILLISECONDS = 120, 3000
NAME_HEIGHT, GAP = 16, 16  # pixels
GUESS_STEPS = 4  # a guess at the unwritten patches stays for so many frames, which takes a third of the bytes
GROUND, VEIL = 0.91, 0.55  # what lies over a guess: its grey of 1, and its share
MARK = np.array([255, 120, 0], dtype=np.uint8)
DARK, LIGHT = np.array([38, 20, 72]), np.array([252, 233, 160])


@dataclass(frozen=True)
class PaintedPicture:
    """A picture with its order: `ranks[p]`, from 0, is the rank at which position p was decoded, `steps[p]` the step,
    from 1."""

    token_ids: Int[np.ndarray, "L"]
    ranks: Int[np.ndarray, "L"]
    steps: Int[np.ndarray, "L"]


def paint_picture(pipeline: Model, prompt: str, seed: int, plan: PlanSpec, sampling: SamplingParams) -> PaintedPicture:
    """Raises a RequestError for what cannot be served."""
    ranks = np.zeros(pipeline.backbone.spec.num_tokens, dtype=np.int64)
    steps = np.zeros_like(ranks)

    def note(_index: int, step: int, _steps: int, patches: tuple[Patch, ...]) -> None:
        for patch in patches:
            ranks[patch.position], steps[patch.position] = patch.rank, step

    request = SequenceRequest("painting", pipeline.encode_prompt(prompt), seed, 0, plan, sampling)
    (token_ids,) = generate(pipeline.backbone, [request], pipeline.unconditional_ids, on_step=note)
    return PaintedPicture(np.array(token_ids), ranks, steps)


def strip(pipeline: Model, painting: PaintedPicture, *, num_frames: int = 6, zoom: int = 6) -> Image.Image:
    """`num_frames` canvases from early to finished, then the map of ranks, in one row."""
    counts = np.linspace(len(painting.ranks) / num_frames, len(painting.ranks), num_frames).round().astype(int)
    known = torch.from_numpy(painting.ranks[None] < counts[:, None])
    token_ids = torch.from_numpy(painting.token_ids)[None].expand(num_frames, -1)
    canvases = pipeline.decode_partial(token_ids, known)
    tiles = [enlarged(canvas, zoom, is_crisp=pipeline.pixel_art) for canvas in canvases]
    tiles.append(enlarged(rank_map(pipeline, painting), zoom, is_crisp=True))
    return contact_sheet(tiles, len(tiles))


def write_animation(
    pipeline: Model, paintings: Mapping[str, Sequence[PaintedPicture]], path: Path, *, zoom: int = 3
) -> None:
    """An animated WebP: the pictures under each name, all of them a step further in each frame. The patches of a step
    are marked in the frame that shows them; the others show a veiled guess. The finished pictures stay for a while."""
    last = max(int(painting.steps.max()) for row in paintings.values() for painting in row)
    frames = [_frame(pipeline, paintings, step, zoom) for step in range(last + 1)]
    frames.append(_frame(pipeline, paintings, last + 1, zoom))
    durations = [STEP_MILLISECONDS] * (len(frames) - 1) + [HOLD_MILLISECONDS]
    first, *others = frames
    first.save(path, save_all=True, append_images=others, duration=durations, loop=0, lossless=True, method=4)


def _frame(pipeline: Model, paintings: Mapping[str, Sequence[PaintedPicture]], step: int, zoom: int) -> Image.Image:
    """One row under another; single pictures stand side by side."""
    rows = [_named(name, _canvases(pipeline, row, step, zoom)) for name, row in paintings.items()]
    width, height = max(row.width for row in rows), rows[0].height
    right, down = (width + GAP, 0) if all(len(row) == 1 for row in paintings.values()) else (0, height)
    last = len(rows) - 1
    frame = Image.new("RGB", (width + right * last, height + down * last), "white")
    for index, row in enumerate(rows):
        frame.paste(row, (right * index, down * index))
    return frame


def _canvases(pipeline: Model, row: Sequence[PaintedPicture], step: int, zoom: int) -> Image.Image:
    """The canvases after a step, its own patches in frames."""
    token_ids = torch.from_numpy(np.stack([painting.token_ids for painting in row]))
    steps = np.stack([painting.steps for painting in row])
    patch = pipeline.image_size[0] // pipeline.grid[0]
    guesses = pipeline.decode_partial(token_ids, torch.from_numpy(steps <= step // GUESS_STEPS * GUESS_STEPS))
    finished = pipeline.decode_partial(token_ids, torch.ones(steps.shape, dtype=torch.bool))
    shape = (len(row), *pipeline.grid)
    written = (steps <= step).reshape(shape).repeat(patch * zoom, 1).repeat(patch * zoom, 2)
    finals, veiled = (
        [enlarged(picture, zoom, is_crisp=pipeline.pixel_art) for picture in pictures]
        for pictures in (finished, (guesses * (1 - VEIL) + 255 * GROUND * VEIL).astype(np.uint8))
    )
    tiles = [np.where(mask[..., None], final, veil) for mask, final, veil in zip(written, finals, veiled)]
    for tile, new in zip(tiles, steps == step):
        for position in np.flatnonzero(new):
            _outline(tile, np.divmod(position, pipeline.grid[1]), patch * zoom)
    return contact_sheet(tiles, len(tiles))


def _outline(tile: UInt8[np.ndarray, "Y X 3"], cell: tuple[int, int], side: int) -> None:
    top, left = cell[0] * side, cell[1] * side
    patch = tile[top : top + side, left : left + side]
    for edge in (patch[:2], patch[-2:], patch[:, :2], patch[:, -2:]):
        edge[:] = MARK


def _named(name: str, pictures: Image.Image) -> Image.Image:
    row = Image.new("RGB", (pictures.width, pictures.height + NAME_HEIGHT), "white")
    ImageDraw.Draw(row).text((2, 2), name, fill="black")
    row.paste(pictures, (0, NAME_HEIGHT))
    return row


def rank_map(pipeline: Model, painting: PaintedPicture) -> UInt8[np.ndarray, "Y X 3"]:
    """First positions dark, last ones light, at the picture's size."""
    share = painting.ranks.reshape(pipeline.grid) / max(1, len(painting.ranks) - 1)
    colours = (DARK + share[..., None] * (LIGHT - DARK)).round().astype(np.uint8)
    patch = pipeline.image_size[0] // pipeline.grid[0]
    return colours.repeat(patch, 0).repeat(patch, 1)
