"""Between stages 2 and 3: the tree from a prompt to an order, fitted to distilled orders and the captions of their
pictures."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from oar_core.errors import ConfigError
from oar_core.models.base import Prefix
from oar_core.order.tree import OrderTree, fit_tree, token_presence
from oar_core.train.order_stats import spearman
from oar_core.train.stages.order_distill import OrderSet
from oar_core.train.tokens import Captioner

KEPT_SHARE = 0.2  # of the distilled pictures, whose orders the tree is scored on before it is fitted to all


@dataclass(frozen=True)
class OrderTreeConfig:
    num_leaves: int = 32  # orders, at most; 1 is one order for all prompts
    min_pictures: int = 20  # of a leaf, each counted once
    num_wordings: int = 2  # captions of each picture

    def __post_init__(self) -> None:
        if min(self.num_leaves, self.min_pictures, self.num_wordings) < 1:
            raise ConfigError("num_leaves, min_pictures and num_wordings are positive")


@dataclass(frozen=True)
class FittedTree:
    tree: OrderTree
    num_pictures: int
    correlation: float  # Spearman, of kept pictures' own orders with those of a tree that did not see them
    one_for_all: float  # the same with one order for all prompts


def fit_order_tree(distilled: OrderSet, captioner: Captioner, config: OrderTreeConfig) -> FittedTree:
    """Raises ConfigError for a model whose conditions are not tokens."""
    ids = [_token_ids(captioner, distilled.indices, seed) for seed in range(config.num_wordings)]
    num_kept = max(1, round(KEPT_SHARE * len(distilled)))
    seen, kept = torch.arange(num_kept, len(distilled)), torch.arange(num_kept)

    def fitted(members: Int[Tensor, "K"], num_leaves: int) -> OrderTree:
        conditions = [wording[member] for wording in ids for member in members.tolist()]
        vocab_size = 1 + max(max(condition, default=0) for condition in conditions)
        orders = distilled.orders[members].repeat(len(ids), 1)
        least = config.min_pictures * config.num_wordings
        return fit_tree(token_presence(conditions, vocab_size), orders, num_leaves, min_pictures=least)

    def correlation(num_leaves: int) -> float:
        tree = fitted(seen if len(seen) else kept, num_leaves)
        predicted = torch.tensor([tree.order(ids[0][member]) for member in kept.tolist()])
        return spearman(predicted, distilled.orders[kept]).mean().item()

    everything = torch.arange(len(distilled))
    tree = fitted(everything, config.num_leaves)
    return FittedTree(tree, len(distilled), correlation(config.num_leaves), correlation(1))


def _token_ids(captioner: Captioner, indices: Int[Tensor, "M"], seed: int) -> list[frozenset[int]]:
    return [frozenset(token_ids_of(prefix)) for prefix in captioner.prefixes(captioner.fixed_captions(indices, seed))]


def token_ids_of(prefix: Prefix) -> tuple[int, ...]:
    """Raises ConfigError for features, which have no words to ask for."""
    if not isinstance(prefix, tuple):
        raise ConfigError("the conditions of this model are features, and only those of tokens decide an order")
    return prefix
