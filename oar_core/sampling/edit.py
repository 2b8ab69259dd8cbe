"""Editing a picture: inpainting, outpainting and variation of a region, in any order of generation.

Tokens whose patch the edit touches are made anew in the context of all others; pixels outside the mask stay.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Self

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from oar_core.errors import RequestError
from oar_core.models.base import Prefix
from oar_core.models.model import Model
from oar_core.order.paths import Grid, random
from oar_core.order.plan import PlanSpec
from oar_core.sampling.generate import generate
from oar_core.sampling.request import KnownTokens, SequenceRequest
from oar_core.sampling.sampler import SamplingParams
from oar_wire.edit import kept_prefix, num_redrawn, touched_patches

Pixels = UInt8[np.ndarray, "Y X 3"]
Mask = Bool[np.ndarray, "Y X"]


@dataclass(frozen=True)
class Edit:
    """The known part of a picture: `canvas` outside of `mask`, and the tokens that stay.

    Under the mask the canvas holds what the new pixels fade out of where a feather is asked for.
    """

    canvas: Pixels
    mask: Mask  # pixels to be made anew
    known: KnownTokens

    @classmethod
    def inpaint(cls, pipeline: Model, pixels: Pixels, mask: Mask) -> Self:
        """Paints the masked pixels anew. What was there leaves no trace: it is filled in from around before the known
        tokens are computed, as an encoder looks beyond its patch. Raises RequestError."""
        _check_sizes(pipeline, pixels, mask)
        canvas = fill_in(pixels, mask)
        return cls(canvas, mask, _known(pipeline, canvas, masked_patches(mask, pipeline.grid)))

    @classmethod
    def outpaint(cls, pipeline: Model, pixels: Pixels, offset: tuple[int, int]) -> Self:
        """Lays a picture of any size on the model's canvas, its top left pixel at `offset` (down, right; negative to
        cut off), and paints the rest of the canvas. Raises RequestError."""
        height, width = pipeline.image_size
        rows, columns = (np.arange(side) - start for side, start in zip((height, width), offset))
        inside = [(index >= 0) & (index < side) for index, side in zip((rows, columns), pixels.shape)]
        mask = ~(inside[0][:, None] & inside[1])
        nearest = [index.clip(0, side - 1) for index, side in zip((rows, columns), pixels.shape)]
        canvas = np.ascontiguousarray(pixels[nearest[0]][:, nearest[1]])
        _check_sizes(pipeline, canvas, mask)
        return cls(canvas, mask, _known(pipeline, canvas, masked_patches(mask, pipeline.grid)))

    @classmethod
    def vary(cls, pipeline: Model, pixels: Pixels, mask: Mask, *, strength: float = 0.5, seed: int = 0) -> Self:
        """Keeps some of what is under the mask: only a share `strength` of its tokens, in (0, 1] and chosen by the
        seed, is drawn anew; of a sequence the last groups, and the mask is all of the picture. Raises RequestError."""
        _check_sizes(pipeline, pixels, mask)
        if not 0 < strength <= 1:
            raise RequestError(f"strength is {strength}; it lies above 0 and up to 1", field="strength")
        if not pipeline.backbone.spec.can_edit:
            return cls(pixels, mask, _first_groups(pipeline, pixels, mask, strength))
        touched = masked_patches(mask, pipeline.grid)
        inside = [position for position in random(pipeline.grid, seed) if touched[position]]
        redrawn = np.zeros_like(touched)
        redrawn[inside[: num_redrawn(len(inside), strength)]] = True
        return cls(pixels, mask, _known(pipeline, pixels, redrawn))

    def requests(
        self, condition_ids: Prefix, plan: PlanSpec, sampling: SamplingParams, *, seed: int, count: int = 1
    ) -> list[SequenceRequest]:
        """Pictures 0 to count - 1 of the seed, for `generate` or an engine."""
        return [
            SequenceRequest(f"edit-{image}", condition_ids, seed, image, plan, sampling, self.known)
            for image in range(count)
        ]

    def finish(
        self, pipeline: Model, token_ids: Sequence[Sequence[int]], *, feather: int = 0
    ) -> UInt8[np.ndarray, "B Y X 3"]:
        """Decodes pictures and lays them into the canvas, as `lay` does."""
        return self.lay(pipeline.decode(torch.tensor(token_ids)), feather=feather)

    def lay(self, painted: UInt8[np.ndarray, "B Y X 3"], *, feather: int = 0) -> UInt8[np.ndarray, "B Y X 3"]:
        """Lays the canvas over painted pictures: exactly so outside the mask; inside, over the `feather` pixels next to
        its edge, the canvas fades out."""
        alpha = opacity(self.mask, feather)[..., None]
        return (self.canvas + alpha * (painted.astype(np.float32) - self.canvas)).round().astype(np.uint8)


def paint_edit(
    pipeline: Model,
    edit: Edit,
    prompt: str,
    plan: PlanSpec,
    sampling: SamplingParams,
    *,
    seed: int,
    count: int = 1,
    feather: int = 0,
) -> UInt8[np.ndarray, "B Y X 3"]:
    """`count` versions of an edit, by the reference loop. Raises a RequestError for what cannot be served."""
    requests = edit.requests(pipeline.encode_prompt(prompt), plan, sampling, seed=seed, count=count)
    token_ids = generate(pipeline.backbone, requests, pipeline.unconditional_ids)
    return edit.finish(pipeline, token_ids, feather=feather)


def masked_patches(mask: Mask, grid: Grid) -> Bool[np.ndarray, "L"]:
    """Tells for each position whether the mask touches its patch."""
    height, width = mask.shape
    return np.array(touched_patches(mask.tobytes(), (height, width), grid))


def fill_in(pixels: Pixels, mask: Mask) -> Pixels:
    """Carries the colours around a mask into it, ring by ring; white where everything is masked."""
    filled, known = pixels.astype(np.float32), ~mask
    if not known.any():
        return np.full_like(pixels, 255)
    while not known.all():
        weights = _neighbours(known[..., None].astype(np.float32))
        ring = ~known & (weights[..., 0] > 0)
        filled[ring] = (_neighbours(filled * known[..., None])[ring]) / weights[ring]
        known |= ring
    return filled.round().astype(np.uint8)


def opacity(mask: Mask, feather: int) -> Float[np.ndarray, "Y X"]:
    """0 outside the mask; inside, 1 from `feather` pixels off its edge on. The picture's border is no edge."""
    depth, inside = np.zeros(mask.shape, dtype=np.float32), mask
    for _ in range(feather + 1):
        depth += inside
        outside = np.pad(~inside, 1, mode="edge")
        inside = ~(
            outside[1:-1, 1:-1] | outside[:-2, 1:-1] | outside[2:, 1:-1] | outside[1:-1, :-2] | outside[1:-1, 2:]
        )
    return depth / (feather + 1)


def _neighbours(values: Float[np.ndarray, "Y X C"]) -> Float[np.ndarray, "Y X C"]:
    """The sum over the up to four neighbours of each pixel."""
    padded = np.pad(values, ((1, 1), (1, 1), (0, 0)))
    return padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]


def _known(pipeline: Model, canvas: Pixels, redrawn: Bool[np.ndarray, "L"]) -> KnownTokens:
    token_ids = pipeline.encode(canvas[None])[0].tolist()
    positions = np.flatnonzero(~redrawn).tolist()
    return KnownTokens(tuple(positions), tuple(token_ids[position] for position in positions))


def _first_groups(pipeline: Model, pixels: Pixels, mask: Mask, strength: float) -> KnownTokens:
    """The coarse part of a picture's tokens, as if the plan had drawn them."""
    sizes = pipeline.backbone.spec.fixed_sizes
    if sizes is None or not pipeline.backbone.spec.can_vary:
        raise RequestError("this model can keep no part of a picture", field="image")
    if not mask.all():
        raise RequestError("this model varies whole pictures, and this one is masked in part", field="mask")
    kept = kept_prefix(sizes, strength)
    token_ids = pipeline.encode(pixels[None])[0, :kept].tolist()
    return KnownTokens(
        tuple(range(kept)), tuple(token_ids), num_resumed=kept, num_steps=list(accumulate(sizes, initial=0)).index(kept)
    )


def _check_sizes(pipeline: Model, pixels: Pixels, mask: Mask) -> None:
    size = pipeline.image_size
    if pixels.shape != (*size, 3) or mask.shape != size:
        raise RequestError(
            f"picture {pixels.shape} and mask {mask.shape} are not of the model's size {size}", field="image"
        )
    if not mask.any():
        raise RequestError("nothing is left to paint", field="mask")
