"""Backbones that can be taught an order: what their training asks beside the contract of `Backbone`."""

from abc import abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oar_core.config import OrderPolicyConfig, OrderScore
from oar_core.models.base import Backbone, Commit, Condition, Query
from oar_core.models.order_policy import MemorySizes, OrderPolicy
from oar_core.nn.attention import DenseMemory, KeyValueStore, compute_dtype
from oar_core.nn.beside import BesideCache, BesideContext
from oar_core.nn.kv_cache import CachedMemory, KVCache
from oar_core.nn.rope import Rotation

POLICY_PREFIX = "policy."  # of an attached order policy in the state dict


@dataclass(frozen=True)
class Memory:
    """Memory of the committed tokens in a training pass: keys and values of each layer, as a cache holds them.

    The mask is what a question at each rank sees: the condition and the tokens of rank below it.
    """

    keys: list[Float[Tensor, "B N T H"]]
    values: list[Float[Tensor, "B N T H"]]
    mask: Float[Tensor, "B 1 L T"]

    def rows_of(self, ranks: Int[Tensor, "B K"]) -> Float[Tensor, "B K T"]:
        """The mask's rows of those ranks."""
        return self.mask[:, 0][torch.arange(len(ranks), device=ranks.device)[:, None], ranks]


@dataclass(frozen=True)
class TrainingPass:
    logits: Float[Tensor, "B L V"]  # as `Backbone.forward` gives them
    memory: Memory


class OrderedBackbone(Backbone):
    """A backbone that can be asked about any position at any time, and so can be trained on any order.

    An order policy may be attached as `policy`; its tensors are then part of the state dict, under that prefix. It
    reads the last layer of the memory.
    """

    def __init__(self, sizes: MemorySizes) -> None:
        """`sizes`: the network's, as its memory has them."""
        super().__init__()
        self._sizes = sizes
        self.policy: OrderPolicy | None = None
        self.order_score = OrderScore()
        self.order_tree = None

    @property
    def has_policy(self) -> bool:
        return self.policy is not None

    def new_policy(self, config: OrderPolicyConfig) -> OrderPolicy:
        """A policy that fits the memory; it is not attached."""
        return OrderPolicy(config, self._sizes)

    def forward(
        self, condition: Condition, token_ids: Int[Tensor, "B L"], positions: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B L V"]:
        return self.read(condition, token_ids, positions).logits

    @abstractmethod
    def read(self, condition: Condition, token_ids: Int[Tensor, "B L"], positions: Int[Tensor, "B L"]) -> TrainingPass:
        """The training pass, with what it leaves behind. Tokens are context alone, so the caller may corrupt them."""

    @abstractmethod
    def ask_at(
        self, memory: Memory, positions: Int[Tensor, "B L"], ranks: Int[Tensor, "B K"]
    ) -> Float[Tensor, "B K L V"]:
        """Logits at all positions, in decode order, each asked alone from the context before each of the ranks."""

    def ask_alone(self, cache: KVCache, slots: Int[Tensor, "B"], commit: Commit, query: Query) -> Float[Tensor, "M V"]:
        """Commits, then predicts each queried position as if no other were asked with it."""
        assert self.spec.can_ask_all, "positions that are asked together see each other"
        return self.step(cache, slots, commit, query)

    def query_rotation(self, positions: Int[Tensor, "*S"], dtype: torch.dtype) -> Rotation:
        """The angles at which a policy looks at the memory from these positions: none, unless keys turn."""
        head_width = self._sizes.width // self._sizes.num_heads
        cos = torch.ones(*positions.shape, head_width, dtype=dtype, device=positions.device)
        return Rotation(cos, torch.zeros_like(cos))

    def committed_only(
        self,
        cache: KVCache,  # noqa: ARG002
        slots: Int[Tensor, "B"],  # noqa: ARG002
    ) -> AbstractContextManager[None]:
        """Leaves in these slots only what is committed, for a while; the rest comes back afterwards."""
        return nullcontext()

    @torch.no_grad()
    def score(self, cache: KVCache, slots: Int[Tensor, "B"], candidates: Query) -> Float[Tensor, "M"]:
        """fp32 scores of the attached order policy."""
        assert self.policy is not None, "no order policy is attached"
        rotation = self.query_rotation(candidates.positions, compute_dtype(self.policy.head.weight))
        with self.committed_only(cache, slots):
            memory = CachedMemory(cache.look(slots, candidates.counts), len(cache.keys) - 1)
            return self.policy(candidates.positions, rotation, memory)

    def scores_at(
        self, policy: OrderPolicy, memory: Memory, positions: Int[Tensor, "B L"], ranks: Int[Tensor, "B K"]
    ) -> Float[Tensor, "B K L"]:
        """A policy's scores of all positions, in decode order, from the context before each of the ranks; no gradient
        flows into the memory."""
        asked = positions.repeat(1, ranks.shape[1])
        keys, values = memory.keys[-1].detach(), memory.values[-1].detach()
        seen = DenseMemory(keys, values, _masks(memory, ranks, positions.shape[1]))
        return policy(asked, self.query_rotation(asked, keys.dtype), seen).unflatten(1, (ranks.shape[1], -1))


class TrunkBackbone(OrderedBackbone):
    """One stack of layers for tokens and questions: a question is a token that sees itself too."""

    @abstractmethod
    def ask(self, positions: Int[Tensor, "*S"], store: KeyValueStore) -> Float[Tensor, "*S V"]:
        """Logits at positions that are questions to what the store holds."""

    def ask_at(
        self, memory: Memory, positions: Int[Tensor, "B L"], ranks: Int[Tensor, "B K"]
    ) -> Float[Tensor, "B K L V"]:
        asked = positions.repeat(1, ranks.shape[1])
        store = BesideContext(memory.keys, memory.values, _masks(memory, ranks, positions.shape[1]))
        return self.ask(asked, store).unflatten(1, (ranks.shape[1], -1))

    @torch.no_grad()
    def ask_alone(self, cache: KVCache, slots: Int[Tensor, "B"], commit: Commit, query: Query) -> Float[Tensor, "M V"]:
        with self.committed_only(cache, slots[commit.counts == 0]):
            self.step(cache, slots, commit, Query(query.positions[:0], (0,) * len(slots)))
            return self.ask(query.positions, BesideCache(cache, slots, query.counts))


def _masks(memory: Memory, ranks: Int[Tensor, "B K"], length: int) -> Float[Tensor, "B 1 G T"]:
    """Masks of all positions as questions to the context of each rank in turn."""
    return memory.rows_of(ranks).repeat_interleave(length, dim=1)[:, None]
