"""Backbones for tests: a tiny real one, and an honest fake whose logits are a hash of all that they may depend on."""

import copy
import zlib
from functools import lru_cache

import torch
from torch import Tensor

from oar_core.config import BackboneConfig, OrderPolicyConfig, OrderScore
from oar_core.models.base import Backbone, BackboneSpec, Commit, Condition, GridLayout, Query
from oar_core.models.oar.backbone import OarBackbone
from oar_core.models.order_policy import OrderPolicy
from oar_core.nn.kv_cache import KVCache
from oar_core.order.paths import halton, spiral
from oar_core.order.tree import LEAF, OrderTree

UNCONDITIONAL = (0,)
TINY = BackboneConfig(
    grid=(4, 5),
    vocab_size=24,
    condition_vocab=16,
    max_condition=6,
    width=32,
    num_heads=2,
    num_context_layers=2,
    num_query_layers=2,
)


@lru_cache(maxsize=1)
def tiny_backbone() -> OarBackbone:
    """Untrained, with weights so large that context, condition and position all sway the logits, and small enough
    that what fp32 rounds away (about 1e-5 in a logit) decides no draw."""
    backbone = OarBackbone(TINY).eval()
    backbone.policy = OrderPolicy(OrderPolicyConfig(width=16, num_layers=1), TINY).eval()
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.1, generator=generator)
        backbone.query.head.weight.mul_(2.5)
        backbone.policy.head.weight.mul_(5)
    return backbone


# Of conditions without the token 2, and of those with it.
PROMPTED_ORDERS = halton(TINY.grid), spiral(TINY.grid)


@lru_cache(maxsize=1)
def tree_backbone() -> OarBackbone:
    """The tiny one with orders that its conditions decide."""
    backbone = copy.deepcopy(tiny_backbone())
    nodes = torch.tensor([[2, 1, 2], [LEAF, 0, 0], [LEAF, 1, 1]])
    backbone.order_tree = OrderTree(nodes, torch.tensor(PROMPTED_ORDERS))
    return backbone


class HashBackbone(Backbone):
    """Keeps the contract of a backbone without arithmetic: logits are drawn from a hash of condition, commits, query.

    It refuses what a real one would silently get wrong: a slot twice in a call, a step before prefill, a position that
    is committed twice or asked for once it is committed.
    """

    def __init__(self, config: BackboneConfig = TINY) -> None:
        super().__init__()
        self.config = config
        self.order_score = OrderScore()
        self.order_tree = None
        self.num_step_rows = 0
        self.num_queries = 0
        self.fail_next = False
        self.is_able_to_score = True
        self._contexts: dict[int, int] = {}
        self._committed: dict[int, set[int]] = {}

    @property
    def spec(self) -> BackboneSpec:
        config = self.config
        return BackboneSpec(GridLayout(*config.grid), config.vocab_size, config.condition_vocab, config.max_condition)

    @property
    def has_policy(self) -> bool:
        return self.is_able_to_score

    def forward(self, condition, token_ids, positions):
        raise AssertionError("there is nothing to train")

    def new_cache(self, num_slots: int) -> KVCache:
        return KVCache.allocate(
            num_layers=1,
            num_slots=num_slots,
            num_heads=1,
            capacity=1,
            head_width=1,
            dtype=torch.float32,
            device=torch.device("cpu"),
        )

    def prefill(self, cache: KVCache, slots: Tensor, condition: Condition, known: Commit) -> None:
        assert len(set(slots.tolist())) == len(slots)
        for row, slot in enumerate(slots.tolist()):
            ids = condition.ids[row, : condition.lengths[row]].tolist()
            self._contexts[slot] = zlib.crc32(repr(ids).encode())
            self._committed[slot] = set()
            self._commit(slot, known, row)

    def step(self, cache: KVCache, slots: Tensor, commit: Commit, query: Query) -> Tensor:
        if self.fail_next:
            self.fail_next = False
            raise FloatingPointError("the device is gone")
        assert len(set(slots.tolist())) == len(slots)
        self.num_step_rows += len(slots)
        self.num_queries += len(query.positions)
        logits = torch.empty(len(query.positions), self.config.vocab_size)
        for row, slot in enumerate(slots.tolist()):
            assert slot in self._contexts, f"slot {slot} was never prefilled"
            self._commit(slot, commit, row)
        for index, (slot, position) in enumerate(_asked(slots, query)):
            seed = zlib.crc32(repr((self._contexts[slot], position)).encode())
            logits[index].normal_(0, 2, generator=torch.Generator().manual_seed(seed))
        return logits

    def score(self, cache: KVCache, slots: Tensor, candidates: Query) -> Tensor:
        return torch.tensor(
            [
                zlib.crc32(repr((self._contexts[slot], position, "score")).encode()) / 2**32
                for slot, position in _asked(slots, candidates)
            ]
        )

    def _commit(self, slot: int, commit: Commit, row: int) -> None:
        count = int(commit.counts[row])
        pairs = zip(commit.positions[row, :count].tolist(), commit.token_ids[row, :count].tolist())
        for position, token_id in pairs:
            assert position not in self._committed[slot], f"position {position} is committed twice"
            self._committed[slot].add(position)
            self._contexts[slot] = zlib.crc32(repr((position, token_id)).encode(), self._contexts[slot])


def _asked(slots: Tensor, query: Query) -> list[tuple[int, int]]:
    """Slot and position of each query."""
    owners = [slot for slot, count in zip(slots.tolist(), query.counts) for _ in range(count)]
    return list(zip(owners, query.positions.tolist(), strict=True))
