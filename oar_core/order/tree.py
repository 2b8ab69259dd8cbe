"""Orders that the condition decides: a decision tree from the tokens of a condition to one of a few orders.

Every picture of one leaf is written in the same order, so nothing has to be asked while a picture is made. The tree is
a regression tree (Breiman et al. 1984) from the presence of tokens to the ranks of the positions: a leaf's order sorts
the positions by their mean rank over the leaf's pictures, which minimises the squared rank error within the leaf.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from oar_core.errors import ConfigError
from oar_core.order.paths import Order
from oar_core.order.permutation import invert

LEAF = -1  # in the place of a node's token
NODE_WIDTH = 3  # a token, and where to go without it and with it


@dataclass(frozen=True)
class OrderTree:
    """Node n asks for token `nodes[n, 0]`; the next node is `nodes[n, 1]` where the condition lacks it, `nodes[n, 2]`
    where it has it. A leaf has LEAF in the place of the token, and the row of its order in the other two."""

    nodes: Int[Tensor, "N 3"]
    orders: Int[Tensor, "K L"]

    def __post_init__(self) -> None:
        """Raises ConfigError for orders that are no permutations, and for nodes that are no rows of three, ask for what
        is no token, or lead nowhere or back."""
        if self.orders.ndim != 2 or not torch.equal(self.orders.sort(dim=1).values, _all(*reversed(self.orders.shape))):
            raise ConfigError("the orders of an order tree are not permutations of all positions")
        if self.nodes.ndim != 2 or self.nodes.shape[1] != NODE_WIDTH:
            raise ConfigError(
                f"the nodes of an order tree are rows of {NODE_WIDTH}; got shape {list(self.nodes.shape)}"
            )
        if bool((self.nodes[:, 0] < LEAF).any()):
            raise ConfigError(f"a node of an order tree asks for token {int(self.nodes[:, 0].min())}")
        numbers = torch.arange(len(self.nodes))
        is_leaf = self.nodes[:, 0] == LEAF
        rows, children = self.nodes[is_leaf, 1:], self.nodes[~is_leaf, 1:]
        is_within = bool(((rows >= 0) & (rows < len(self.orders))).all() and (children < len(self.nodes)).all())
        if not len(self.nodes) or not is_within or not bool((children > numbers[~is_leaf, None]).all()):
            raise ConfigError("the nodes of an order tree do not lead to its orders")

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Raises ConfigError."""
        if set(tensors) != {"nodes", "orders"}:
            raise ConfigError(f"an order tree has nodes and orders, and this one has {', '.join(tensors) or 'nothing'}")
        if any(tensor.is_floating_point() or tensor.is_complex() for tensor in tensors.values()):
            raise ConfigError("the nodes and orders of an order tree are whole numbers")
        return cls(tensors["nodes"].long(), tensors["orders"].long())

    def tensors(self) -> dict[str, Tensor]:
        """Tensors of the tree, as a model's folder keeps them."""
        return {"nodes": self.nodes.int(), "orders": self.orders.to(torch.int16)}

    def is_same(self, other: "OrderTree") -> bool:
        """Tells whether both have the same nodes and orders."""
        return torch.equal(self.nodes, other.nodes) and torch.equal(self.orders, other.orders)

    def __len__(self) -> int:
        return len(self.orders)

    def leaf(self, token_ids: Collection[int]) -> int:
        """The row of the order of a condition with these tokens."""
        node = 0
        while True:
            token, without, with_it = (int(entry) for entry in self.nodes[node])
            if token == LEAF:
                return without
            node = with_it if token in token_ids else without

    def order(self, token_ids: Collection[int]) -> Order:
        return tuple(int(position) for position in self.orders[self.leaf(frozenset(token_ids))])


def fit_tree(
    presence: Bool[Tensor, "M V"], orders: Int[Tensor, "M L"], num_leaves: int, *, min_pictures: int
) -> OrderTree:
    """The tree of at most `num_leaves` leaves, of at least `min_pictures` pictures each, that grows by cutting the leaf
    whose best cut takes most off the squared rank error."""
    ranks = invert(orders).float()
    leaves = [torch.arange(len(ranks))]
    nodes: list[list[int]] = [[LEAF, 0, 0]]
    place = [0]  # of each leaf, among the nodes
    cuts = [_best_cut(presence, ranks, leaves[0], min_pictures)]
    while len(leaves) < num_leaves:
        chosen = max(range(len(leaves)), key=lambda leaf: cuts[leaf][0])
        gain, token = cuts[chosen]
        if gain <= 0:
            break
        members = leaves[chosen]
        has_it = presence[members, token]
        nodes[place[chosen]] = [token, len(nodes), len(nodes) + 1]
        parts = (members[~has_it], members[has_it])
        for part, leaf in zip(parts, (chosen, len(leaves))):
            nodes.append([LEAF, leaf, leaf])
            found = _best_cut(presence, ranks, part, min_pictures)
            if leaf == len(leaves):
                leaves.append(part)
                place.append(len(nodes) - 1)
                cuts.append(found)
            else:
                leaves[leaf], place[leaf], cuts[leaf] = part, len(nodes) - 1, found
    means = torch.stack([ranks[members].mean(dim=0) for members in leaves])
    return OrderTree(torch.tensor(nodes), means.argsort(dim=1, stable=True))


def _best_cut(
    presence: Bool[Tensor, "M V"], ranks: Float[Tensor, "M L"], members: Int[Tensor, "K"], min_pictures: int
) -> tuple[float, int]:
    """Finds the gain of the best cut of a leaf in squared error, and its token; 0 where no cut is allowed.

    A part of n pictures whose ranks sum to s has the error `sum |r|^2 - |s|^2 / n`; the first term is the same before
    and after.
    """
    has_it = presence[members].float()
    own = ranks[members] - ranks[members].mean(dim=0)  # sums to 0: the error before the cut has no second term
    counts = has_it.sum(dim=0)
    squares = (has_it.T @ own).square().sum(dim=1)
    gains = squares / counts.clamp_min(1) + squares / (len(members) - counts).clamp_min(1)
    is_allowed = (counts >= min_pictures) & (len(members) - counts >= min_pictures)
    gains = torch.where(is_allowed, gains, torch.zeros_like(gains))
    token = int(gains.argmax())
    return float(gains[token]), token


def token_presence(condition_ids: Collection[Collection[int]], vocab_size: int) -> Bool[Tensor, "M V"]:
    """Marks the tokens that each condition has."""
    presence = torch.zeros(len(condition_ids), vocab_size, dtype=torch.bool)
    for row, ids in zip(presence, condition_ids):
        row[list(ids)] = True
    return presence


def _all(length: int, count: int) -> Int[Tensor, "K L"]:
    return torch.arange(length).expand(count, -1)
