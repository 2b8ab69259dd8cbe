"""Tokens to pictures, in threads beside the engine: WebP of half-done canvases, PNG of finished ones."""

import asyncio
import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from oar_core.sampling.pipeline import Pipeline
from server.schemas.events import Preview
from server.worker.running import Canvas

NUM_THREADS = 2
WEBP_QUALITY = 80


class Renderer:
    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="render")

    async def finish(self, pipeline: Pipeline, token_ids: Sequence[Sequence[int]]) -> tuple[bytes, ...]:
        """One PNG for each list of L token ids."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, render_pngs, pipeline, token_ids)

    async def preview(self, pipeline: Pipeline, canvases: Sequence[Canvas], images: Sequence[int]) -> list[Preview]:
        """The canvases as they are now; `images` are their indices within their jobs."""
        known = [(list(canvas.positions), list(canvas.token_ids)) for canvas in canvases]
        return await asyncio.get_running_loop().run_in_executor(self._threads, _previews, pipeline, known, images)

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)


def render_pngs(pipeline: Pipeline, token_ids: Sequence[Sequence[int]]) -> tuple[bytes, ...]:
    pixels = pipeline.decode(torch.tensor(token_ids, dtype=torch.long))
    return tuple(_encode(picture, "PNG") for picture in pixels)


def _previews(pipeline: Pipeline, known: Sequence[tuple[list[int], list[int]]], images: Sequence[int]) -> list[Preview]:
    height, width = pipeline.grid
    token_ids = torch.zeros(len(known), height * width, dtype=torch.long)
    mask = torch.zeros_like(token_ids, dtype=torch.bool)
    for row, (positions, tokens) in enumerate(known):
        token_ids[row, positions] = torch.tensor(tokens, dtype=torch.long)
        mask[row, positions] = True
    pixels = pipeline.decode_partial(token_ids, mask)
    return [
        Preview(
            image=image,
            known=len(positions),
            total=height * width,
            width=picture.shape[1],
            height=picture.shape[0],
            data=base64.b64encode(_encode(picture, "WEBP", quality=WEBP_QUALITY)).decode(),
        )
        for picture, (positions, _), image in zip(pixels, known, images)
    ]


def _encode(picture: UInt8[np.ndarray, "Y X 3"], kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, **options)
    return buffer.getvalue()
