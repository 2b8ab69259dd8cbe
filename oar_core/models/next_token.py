"""Backbones whose query is the last token of a row's sequence: what it foretells is the next position."""

from abc import abstractmethod
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from oar_core.models.base import Backbone, Commit, Condition, Query, valid_places, within
from oar_core.nn.attention import KeyValueStore, Uncached, additive_mask
from oar_core.nn.kv_cache import KVCache
from oar_core.nn.tables import moved, offsets_within

NOWHERE = -1  # the position of a condition's tokens


@dataclass
class LastStateCache(KVCache):
    """A `KVCache` that also keeps what the network made of each slot's latest entry."""

    last: Float[Tensor, "slots D"] = field(kw_only=True)

    @classmethod
    def of(cls, cache: KVCache, width: int, dtype: torch.dtype) -> "LastStateCache":
        last = torch.zeros(cache.num_slots, width, dtype=dtype, device=cache.keys.device)
        return cls(cache.keys, cache.values, cache.lengths, last=last)

    @property
    def num_bytes(self) -> int:
        return super().num_bytes + self.last.nbytes

    def grow(self, num_slots: int) -> None:
        added = self.last.new_zeros(num_slots - self.num_slots, self.last.shape[1])
        super().grow(num_slots)
        self.last = torch.cat([self.last, added])


class NextTokenBackbone(Backbone):
    """Everything of such a backbone but its network. A sequence is `[condition] [token 0] [token 1] ...`, causal,
    in raster order; a condition has at least one token."""

    @abstractmethod
    def embed_condition(self, condition: Condition) -> Float[Tensor, "B P D"]: ...

    @abstractmethod
    def embed_tokens(self, token_ids: Int[Tensor, "*S"]) -> Float[Tensor, "*S D"]: ...

    @abstractmethod
    def states(
        self, x: Float[Tensor, "*S D"], positions: Int[Tensor, "*S"], entries: Int[Tensor, "*S"], store: KeyValueStore
    ) -> Float[Tensor, "*S D"]:
        """Runs the network over the tokens. Each has a position on the grid (NOWHERE in a condition), and a
        place in its row's sequence, which begins with 0."""

    @abstractmethod
    def logits(self, states: Float[Tensor, "*S D"]) -> Float[Tensor, "*S V"]:
        """Logits of the position behind each token."""

    def forward(
        self, condition: Condition, token_ids: Int[Tensor, "B L"], positions: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B L V"]:
        num_condition, num_context = condition.ids.shape[1], positions.shape[1] - 1
        x = torch.cat([self.embed_condition(condition), self.embed_tokens(token_ids[:, :-1])], dim=1)
        lengths = condition.lengths.to(x.device)
        places = torch.cat([torch.full_like(condition.ids, NOWHERE), positions[:, :-1]], dim=1)
        behind = lengths[:, None] + torch.arange(num_context, device=x.device)
        entries = torch.cat([torch.arange(num_condition, device=x.device).expand(len(lengths), -1), behind], dim=1)
        mask = _training_mask(lengths, num_condition, num_context, x.dtype)
        states = self.states(x, places, entries, Uncached(mask))
        # Rank 0 is read at each row's last condition token, the others at the token before them.
        first = states[torch.arange(len(lengths), device=x.device), lengths - 1]
        return self.logits(torch.cat([first[:, None], states[:, num_condition:]], dim=1))

    @torch.no_grad()
    def prefill(self, cache: KVCache, slots: Int[Tensor, "B"], condition: Condition, known: Commit) -> None:
        cache.reset(slots)
        valid = torch.cat([within(condition.lengths, condition.ids.shape[1]), known.valid], dim=1)
        places = valid_places(valid, cache.keys.device)
        x = torch.cat([self.embed_condition(condition), self.embed_tokens(known.token_ids)], dim=1)
        nowhere = torch.full_like(condition.ids, NOWHERE)
        positions = torch.cat([nowhere, known.positions], dim=1).flatten()
        self._extend(cache, slots, condition.lengths + known.counts, x.flatten(0, 1)[places], positions[places])

    @torch.no_grad()
    def step(self, cache: KVCache, slots: Int[Tensor, "B"], commit: Commit, query: Query) -> Float[Tensor, "M V"]:
        """Commits, then says what comes next in the rows that ask; a row asks one position at most."""
        assert isinstance(cache, LastStateCache), "a cache of another family"
        assert max(query.counts, default=0) <= 1, "the next position alone can be asked"
        places = valid_places(commit.valid, cache.keys.device)
        if len(places):
            x = self.embed_tokens(commit.token_ids.flatten()[places])
            self._extend(cache, slots, commit.counts, x, commit.positions.flatten()[places])
        asking = slots[torch.tensor(query.counts, dtype=torch.bool)].to(cache.last.device)
        return self.logits(cache.last[asking])

    def _extend(
        self,
        cache: KVCache,
        slots: Int[Tensor, "B"],
        counts: Int[Tensor, "B"],
        x: Float[Tensor, "M D"],
        positions: Int[Tensor, "M"],
    ) -> None:
        assert isinstance(cache, LastStateCache), "a cache of another family"
        rows, added = slots.cpu().numpy(), counts.numpy()
        entries = np.repeat(cache.lengths.numpy()[rows], added) + offsets_within(added)
        has_new = added > 0
        tables = [entries, rows[has_new], added.cumsum()[has_new] - 1]
        entries, changed, ends = moved(tables, cache.keys.device)
        states = self.states(x, positions, entries, cache.extend(slots, added.tolist()))
        cache.last[changed] = states[ends].to(cache.last.dtype)


def _training_mask(
    lengths: Int[Tensor, "B"], num_condition: int, num_context: int, dtype: torch.dtype
) -> Float[Tensor, "B 1 S S"]:
    """Mask over `[condition ; tokens]`: each sees itself and those before it, pads of conditions aside."""
    places = torch.arange(num_condition + num_context, device=lengths.device)
    is_known = (places < lengths[:, None]) | (places >= num_condition)
    causal, itself = places <= places[:, None], places == places[:, None]
    return additive_mask(causal & is_known[:, None] | itself, dtype)[:, None]
