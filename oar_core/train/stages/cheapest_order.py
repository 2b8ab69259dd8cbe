"""One order for all prompts, searched for what its steps cost; no backbone is asked."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from oar_core.errors import ConfigError
from oar_core.order.paths import Grid, Order, halton, symmetries
from oar_core.order.plan import group_sizes
from oar_core.order.tree import LEAF, OrderTree, token_presence
from oar_core.train.cheapest import cheapest_order, position_covariance, schedule_nats
from oar_core.train.stages.order_tree import token_ids_of
from oar_core.train.tokens import Captioner


@dataclass(frozen=True)
class CheapestOrderConfig:
    steps: int = 8
    sizes: tuple[int, ...] = ()  # of the steps; none are those of `cosine`
    num_trials: int = 8000  # exchanges of two positions; 0 leaves the symmetry of Halton order that costs least
    num_images: int = 20_000  # training pictures that the covariance is of
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.num_images, *self.sizes) < 1 or self.num_trials < 0:
            raise ConfigError("steps, sizes and num_images are positive, and num_trials is not negative")

    def sizes_of(self, length: int) -> tuple[int, ...]:
        """Raises ConfigError for sizes that do not fill a picture."""
        sizes = self.sizes or group_sizes("cosine", self.steps, length)
        if sum(sizes) != length:
            raise ConfigError(f"sizes sum to {sum(sizes)}; a picture has {length} positions")
        return sizes


@dataclass(frozen=True)
class CheapestOrder:
    """`excess` is what its steps cost above one position a step, in nats a picture of the Gaussian model. The search
    starts from the symmetry of Halton order that costs least."""

    order: Order
    sizes: tuple[int, ...]
    excess: float
    halton_excess: float
    start_excess: float

    @property
    def tree(self) -> OrderTree:
        """An order tree of one leaf."""
        return OrderTree(torch.tensor([[LEAF, 0, 0]]), torch.tensor([self.order]))


def search_order(
    captioner: Captioner, codebook: Float[Tensor, "V C"], grid: Grid, config: CheapestOrderConfig
) -> CheapestOrder:
    """Raises ConfigError for sizes that do not fit, and for conditions that are not tokens."""
    tokens = captioner.tokens
    length = grid[0] * grid[1]
    sizes = config.sizes_of(length)
    picked = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(config.seed))[: config.num_images]
    prefixes = captioner.prefixes(captioner.fixed_captions(picked, config.seed))
    ids = [frozenset(token_ids_of(prefix)) for prefix in prefixes]
    presence = token_presence(ids, 1 + max(max(one, default=0) for one in ids))
    presence = presence[:, presence.any(dim=0) & ~presence.all(dim=0)]
    covariance = position_covariance(codebook[tokens.token_ids[picked].long()], presence.float())
    start = min(symmetries(halton(grid), grid), key=lambda order: schedule_nats(covariance, order, sizes))
    order = cheapest_order(covariance, start, sizes, num_trials=config.num_trials, seed=config.seed)
    least = schedule_nats(covariance, order, (1,) * length)
    excess = [schedule_nats(covariance, one, sizes) - least for one in (order, halton(grid), start)]
    return CheapestOrder(order, sizes, *excess)
