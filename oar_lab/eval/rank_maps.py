"""Statistics of orders: when each position is decoded on average, and how much orders differ."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image, ImageDraw
from torch import Tensor

from oar_lab.eval.painting import DARK, LIGHT

Grid = tuple[int, int]
CAPTION_WIDTH, CAPTION_HEIGHT, CAPTION_GAP = 120, 20, 6  # pixels of a heat map's name


def mean_rank_map(ranks: Int[Tensor, "M L"], grid: Grid) -> Float[Tensor, "h w"]:
    """Mean rank of each position, from 0 (always first) to 1 (always last)."""
    return (ranks.double().mean(0) / max(1, ranks.shape[1] - 1)).unflatten(0, grid)


def class_rank_maps(
    ranks: Int[Tensor, "M L"], labels: Int[Tensor, "M"], classes: Sequence[str], grid: Grid, *, min_count: int = 20
) -> dict[str, Float[Tensor, "h w"]]:
    """The mean rank map of each class that has at least `min_count` pictures."""
    counts = {name: int((labels == number).sum()) for number, name in enumerate(classes)}
    return {
        name: mean_rank_map(ranks[labels == number], grid)
        for number, name in enumerate(classes)
        if counts[name] >= min_count
    }


def rank_entropy(ranks: Int[Tensor, "M L"]) -> float:
    """Entropy of the rank that a position gets, mean over positions, as a share of log L: 0 for one fixed order.

    With the Miller-Madow correction, (occupied - 1) / 2M, for what M samples miss of it; about 1 for random orders.
    """
    num_samples, length = ranks.shape
    if length == 1:
        return 0.0
    counts = torch.zeros(length, length, dtype=torch.float64)
    positions = torch.arange(length).expand(num_samples, -1)
    counts.index_put_((positions, ranks.long()), torch.ones((), dtype=torch.float64), accumulate=True)
    shares = counts / num_samples
    entropy = -torch.xlogy(shares, shares).sum(1) + ((counts > 0).sum(1) - 1) / (2 * num_samples)
    return (entropy.mean() / np.log(length)).item()


def pairwise_entropy(ranks: Int[Tensor, "M L"]) -> float:
    """Bits that say which of two positions came first, mean over pairs: 0 for one fixed order, 1 for random ones."""
    num_samples, length = ranks.shape
    if length == 1:
        return 0.0
    before = torch.zeros(length, length, dtype=torch.float64)
    for part in ranks.split(256):
        before += (part[:, :, None] < part[:, None, :]).sum(0)
    share = (before / num_samples)[torch.triu_indices(length, length, offset=1).unbind(0)]
    bits = -(torch.xlogy(share, share) + torch.xlogy(1 - share, 1 - share)) / np.log(2)
    return bits.mean().item()


def heat_map(values: Float[Tensor, "h w"], *, zoom: int = 12) -> Image.Image:
    """Values from 0 (dark) to 1 (light), `zoom` pixels a position."""
    share = values.double().clamp(0, 1).numpy()[..., None]
    colours = (DARK + share * (LIGHT - DARK)).round().astype(np.uint8)
    return Image.fromarray(colours.repeat(zoom, 0).repeat(zoom, 1))


def heat_sheet(maps: Mapping[str, Float[Tensor, "h w"]], *, columns: int = 8, zoom: int = 12) -> Image.Image:
    """Heat maps in rows, each under its name."""
    tiles = {name: heat_map(values, zoom=zoom) for name, values in maps.items()}
    tile = next(iter(tiles.values()))
    width, height = max(tile.width, CAPTION_WIDTH) + CAPTION_GAP, tile.height + CAPTION_HEIGHT
    sheet = Image.new("RGB", (min(columns, len(tiles)) * width, -(-len(tiles) // columns) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (name, picture) in enumerate(tiles.items()):
        row, column = divmod(number, columns)
        draw.text((column * width, row * height), name, fill="black")
        sheet.paste(picture, (column * width, row * height + CAPTION_HEIGHT - CAPTION_GAP))
    return sheet
