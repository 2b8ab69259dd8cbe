"""Tokens to pictures, in threads beside the engine: WebP of half-done canvases, PNG of finished ones."""

import asyncio
import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from oar_core.models.model import FrameModel, Model
from oar_core.sampling.frames import Frame
from oar_wire.events import Partial, Preview
from oar_wire.job import EditParams
from server.worker.edits import JobEdit
from server.worker.gathering import Gathering
from server.worker.running import Snapshot

NUM_THREADS = 2
MOST_JOBS = 8  # that are decoded together: the first of them waits for all
MOST_PICTURES = 16  # in one pass through the decoder, whose memory grows with them
WEBP_QUALITY = 80


@dataclass(frozen=True)
class FinishedTokens:
    """The tokens of a finished job."""

    token_ids: Sequence[Sequence[int]]  # of each picture, by position
    edit: JobEdit | None = None


class Renderer:
    def __init__(self, *, is_deterministic: bool = False) -> None:
        """Decodes no two jobs together where it `is_deterministic`."""
        self._threads = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="render")
        self._most_jobs = 1 if is_deterministic else MOST_JOBS
        self._finishing: dict[str, Gathering[FinishedTokens, tuple[bytes, ...]]] = {}

    async def finish(
        self, pipeline: Model, token_ids: Sequence[Sequence[int]], edit: JobEdit | None = None
    ) -> tuple[bytes, ...]:
        """One PNG for each list of L token ids. Jobs that end while others are decoded are decoded together."""
        if pipeline.name not in self._finishing:
            work = partial(render_jobs, pipeline)
            self._finishing[pipeline.name] = Gathering(work, self._threads, self._most_jobs)
        return await self._finishing[pipeline.name].ask(FinishedTokens(token_ids, edit))

    async def preview(self, pipeline: Model, snapshots: Sequence[Snapshot]) -> list[Preview | Partial]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, render_previews, pipeline, snapshots)

    async def frame(self, model: FrameModel, values: Frame) -> bytes:
        """A PNG."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, render_frame, model, values)

    async def videos(self, model: FrameModel, clips: Sequence[Sequence[Frame]]) -> list[bytes]:
        """An animated WebP, without loss, of each."""
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: [render_video(model, frames) for frames in clips]
        )

    async def open_edit(self, pipeline: Model, params: EditParams, png: bytes, seed: int) -> JobEdit:
        """Raises RequestError."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: JobEdit.open(pipeline, params, png, seed=seed))

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)


def render_pngs(pipeline: Model, token_ids: Sequence[Sequence[int]], edit: JobEdit | None = None) -> tuple[bytes, ...]:
    return render_jobs(pipeline, [FinishedTokens(token_ids, edit)])[0]


def render_jobs(pipeline: Model, jobs: Sequence[FinishedTokens]) -> list[tuple[bytes, ...]]:
    """The PNGs of each job, whose pictures go through the decoder side by side."""
    token_ids = torch.tensor([picture for job in jobs for picture in job.token_ids], dtype=torch.long)
    pixels = np.concatenate([pipeline.decode(part) for part in torch.split(token_ids, MOST_PICTURES)])
    ends = list(accumulate(len(job.token_ids) for job in jobs))
    return [
        tuple(_encode(picture, "PNG") for picture in (job.edit.lay(own) if job.edit else own))
        for job, own in zip(jobs, np.split(pixels, ends[:-1]))
    ]


def render_frame(model: FrameModel, values: Frame) -> bytes:
    return _encode(model.show(values[None])[0], "PNG")


def render_video(model: FrameModel, frames: Sequence[Frame]) -> bytes:
    first, *others = (Image.fromarray(model.show(values[None])[0]) for values in frames)
    buffer = io.BytesIO()
    # Pillow counts a frame that is like the one before as a longer one; here each is one of its own.
    options = {"lossless": True, "minimize_size": False, "allow_mixed": False}
    duration = model.backbone.spec.frame_milliseconds
    first.save(buffer, "WEBP", save_all=True, append_images=others, duration=duration, loop=0, **options)
    return buffer.getvalue()


def render_previews(pipeline: Model, snapshots: Sequence[Snapshot]) -> list[Preview | Partial]:
    """One for each snapshot, in their order."""
    height, width = pipeline.grid
    token_ids = torch.zeros(len(snapshots), height * width, dtype=torch.long)
    mask = torch.zeros_like(token_ids, dtype=torch.bool)
    for row, snapshot in enumerate(snapshots):
        if (expected := snapshot.expectation) is not None:
            token_ids[row, list(expected.positions)] = torch.tensor(expected.token_ids, dtype=torch.long)
            mask[row, list(expected.positions)] = True
        token_ids[row, list(snapshot.positions)] = torch.tensor(snapshot.token_ids, dtype=torch.long)
        mask[row, list(snapshot.positions)] = True
    pixels = pipeline.decode_partial(token_ids, mask)
    return [
        _preview(pipeline, snapshot, snapshot.edit.lay(picture[None])[0] if snapshot.edit else picture)
        for snapshot, picture in zip(snapshots, pixels)
    ]


def _preview(pipeline: Model, snapshot: Snapshot, picture: UInt8[np.ndarray, "Y X 3"]) -> Preview | Partial:
    # A partial image may be sent on in another format: it loses nothing here.
    options = {"quality": WEBP_QUALITY} if snapshot.partial_index is None else {"lossless": True}
    preview = Preview(
        image=snapshot.image,
        known=len(snapshot.positions),
        total=pipeline.backbone.spec.num_tokens,
        resolution=_resolution(pipeline, len(snapshot.positions)),
        width=picture.shape[1],
        height=picture.shape[0],
        data=base64.b64encode(_encode(picture, "WEBP", **options)).decode(),
    )
    if snapshot.partial_index is None:
        return preview
    return Partial(**preview.model_dump(exclude={"type"}), index=snapshot.partial_index)


def _resolution(pipeline: Model, known: int) -> tuple[int, int] | None:
    """Width and height, where the known tokens tell of less than the whole."""
    height, width = pipeline.tokenizer.resolution(known)
    return None if (height, width) == pipeline.image_size else (width, height)


def _encode(picture: UInt8[np.ndarray, "Y X 3"], kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, **options)
    return buffer.getvalue()
