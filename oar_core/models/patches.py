"""A picture as a list of patches, and back."""

from jaxtyping import Float
from torch import Tensor


def cut(images: Float[Tensor, "B 3 Y X"], size: int) -> Float[Tensor, "B P D"]:
    """Patches of `size` x `size` pixels, row by row."""
    tiles = images.unflatten(3, (-1, size)).unflatten(2, (-1, size))  # B 3 h p w q
    return tiles.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def join(patches: Float[Tensor, "B P D"], grid: tuple[int, int], size: int) -> Float[Tensor, "B 3 Y X"]:
    tiles = patches.unflatten(1, grid).unflatten(3, (3, size, size))  # B h w 3 p q
    return tiles.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
