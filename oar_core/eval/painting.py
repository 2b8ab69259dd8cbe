"""How one picture came about: its canvas at some steps, and the rank at which each position was written."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image

from oar_core.eval.sheet import contact_sheet
from oar_core.order.plan import PlanSpec
from oar_core.sampling.generate import generate
from oar_core.sampling.pipeline import Pipeline
from oar_core.sampling.progress import Patch
from oar_core.sampling.request import SequenceRequest
from oar_core.sampling.sampler import SamplingParams

DARK, LIGHT = np.array([38, 20, 72]), np.array([252, 233, 160])


@dataclass(frozen=True)
class Painting:
    """`token_ids` are in grid order; `ranks[p]` is the rank at which position p was decoded, 0 first."""

    token_ids: Int[np.ndarray, "L"]
    ranks: Int[np.ndarray, "L"]


def paint(pipeline: Pipeline, prompt: str, seed: int, plan: PlanSpec, sampling: SamplingParams) -> Painting:
    """Raises a RequestError for what cannot be served."""
    ranks = np.zeros(pipeline.backbone.config.num_tokens, dtype=np.int64)

    def note(_index: int, _step: int, _steps: int, patches: tuple[Patch, ...]) -> None:
        for patch in patches:
            ranks[patch.position] = patch.rank

    request = SequenceRequest("painting", pipeline.encode_prompt(prompt), seed, 0, plan, sampling)
    (token_ids,) = generate(pipeline.backbone, [request], pipeline.unconditional_ids, on_step=note)
    return Painting(np.array(token_ids), ranks)


def strip(pipeline: Pipeline, painting: Painting, *, num_frames: int = 6, zoom: int = 6) -> Image.Image:
    """`num_frames` canvases from early to finished, then the map of ranks, in one row."""
    counts = np.linspace(len(painting.ranks) / num_frames, len(painting.ranks), num_frames).round().astype(int)
    known = torch.from_numpy(painting.ranks[None] < counts[:, None])
    token_ids = torch.from_numpy(painting.token_ids)[None].expand(num_frames, -1)
    canvases = pipeline.decode_partial(token_ids, known)
    return contact_sheet([*canvases, rank_map(pipeline, painting)], num_frames + 1, scale=zoom)


def rank_map(pipeline: Pipeline, painting: Painting) -> UInt8[np.ndarray, "Y X 3"]:
    """First positions dark, last ones light, at the picture's size."""
    share = painting.ranks.reshape(pipeline.grid) / max(1, len(painting.ranks) - 1)
    colours = (DARK + share[..., None] * (LIGHT - DARK)).round().astype(np.uint8)
    patch = pipeline.tokenizer.config.patch_size
    return colours.repeat(patch, 0).repeat(patch, 1)
