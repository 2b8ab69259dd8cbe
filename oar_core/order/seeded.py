"""Orders that are laid out anew for each picture: a new one is a line below, and its test."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from oar_core.order.paths import Grid, Order, locality, random
from oar_core.order.spaced import spaced


@dataclass(frozen=True)
class SeededPicture:
    """Facts that such an order may depend on. The content is none of them."""

    grid: Grid
    sizes: tuple[int, ...]  # of the groups, over the positions that are not given
    seed: int
    image_index: int
    given: Collection[int]  # an edit's kept positions; an order may name them or leave them out
    repulsion: int  # cells that the positions of a group keep from each other


SEEDED: dict[str, Callable[[SeededPicture], Order]] = {
    "random": lambda p: random(p.grid, p.seed, p.image_index),
    "locality": lambda p: locality(p.grid, p.seed, p.image_index, p.given),
    "spaced": lambda p: spaced(p.grid, p.sizes, p.seed, p.image_index, p.given, p.repulsion),
}
