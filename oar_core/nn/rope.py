"""Rotary position angles (RoPE, arXiv 2104.09864): of grids, with one half of the angles per axis, and of sequences."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

# Grids have tens of cells a side, not thousands as text has, so the slowest angle turns a useful amount within them.
BASE = 100.0


class Rotation(NamedTuple):
    """Cosines and sines of the angles by which each token's `H / 2` pairs turn, one for each number of a pair: the
    first half's sines are negative."""

    cos: Float[Tensor, "*S H"]
    sin: Float[Tensor, "*S H"]

    def slice(self, start: int, stop: int) -> "Rotation":
        return Rotation(self.cos[:, start:stop], self.sin[:, start:stop])


class AngleTable(nn.Module):
    """Rotations by the angles of a table, one row for each place. A pair is dims `(i, i + H / 2)`.

    The table is a function of the config, so it is no part of the state dict.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, angles: Float[Tensor, "places half"]) -> None:
        super().__init__()
        self.register_buffer("cos", angles.cos().repeat(1, 2), persistent=False)
        self.register_buffer("sin", torch.cat([-angles.sin(), angles.sin()], dim=-1), persistent=False)

    def forward(self, places: Int[Tensor, "*S"], dtype: torch.dtype) -> Rotation:
        return Rotation(self.cos.to(dtype)[places], self.sin.to(dtype)[places])


class RotaryTable(AngleTable):
    """Angles of every grid position, and of `nowhere`: the index of tokens that have no position and do not turn.

    The first `H / 4` pairs turn with the row, the others with the column.
    """

    def __init__(
        self, grid: tuple[int, int], head_width: int, base: float = BASE, *, is_nowhere_zero: bool = False
    ) -> None:
        """Makes tokens without a position zero where `is_nowhere_zero`; else they stay as they are."""
        angles = grid_angles(grid, head_width, base)
        super().__init__(torch.cat([angles, torch.zeros(1, head_width // 2)]))
        self.nowhere = angles.shape[0]
        if is_nowhere_zero:
            self.cos[self.nowhere] = 0


class SequenceRotary(AngleTable):
    """Angles of every place in a sequence, as in language models: pair i turns by `base ** (-2i / H)` a place."""

    def __init__(self, length: int, head_width: int, base: float) -> None:
        assert head_width % 2 == 0, f"head width {head_width} does not split into pairs"
        frequencies = base ** (-torch.arange(0, head_width, 2).float() / head_width)
        super().__init__(torch.arange(length)[:, None] * frequencies)


def grid_angles(grid: tuple[int, int], head_width: int, base: float = BASE) -> Float[Tensor, "L half"]:
    """Angles in radians of each position of the grid `(h, w)`, in raster order."""
    assert head_width % 4 == 0, f"head width {head_width} does not split into pairs for two axes"
    height, width = grid
    frequencies = base ** (-torch.arange(head_width // 4) / (head_width // 4))
    rows = torch.arange(height).repeat_interleave(width)
    columns = torch.arange(width).repeat(height)
    return torch.cat([rows[:, None] * frequencies, columns[:, None] * frequencies], dim=-1)


def rotate(x: Float[Tensor, "... H"], rotation: Rotation) -> Float[Tensor, "... H"]:
    """Turns the pairs of `x` by its tokens' angles; what lies between tokens and pairs (heads) turns alike."""
    tokens = rotation.cos.shape[:-1]
    shape = (*tokens, *(1,) * (x.ndim - len(tokens) - 1), x.shape[-1])
    cos, sin = rotation.cos.view(shape), rotation.sin.view(shape)
    first, second = x.chunk(2, dim=-1)
    # Three passes over memory: a step of few rows is bound by how many there are.
    return torch.addcmul(x * cos, torch.cat([second, first], dim=-1), sin)


def halved(weight: Float[Tensor, "D K"], num_heads: int) -> Float[Tensor, "D K"]:
    """Rows of a query or key matrix whose rotary pairs are neighbours, as one whose pairs are half a head apart."""
    heads = weight.unflatten(0, (num_heads, -1, 2))
    return heads.transpose(1, 2).flatten(0, 2)


def neighboured(x: Float[Tensor, "... H"]) -> Float[Tensor, "... H"]:
    """A vector whose rotary pairs are half a head apart, as one whose pairs are neighbours."""
    return x.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2)
