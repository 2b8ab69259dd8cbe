"""The DetailFlow network: one stack that reads a group of tokens, which see each other, and foretells the next one."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from oar_core.config import OrderScore
from oar_core.detail_config import HELD, DetailBackboneConfig
from oar_core.models.base import (
    Backbone,
    BackboneSpec,
    Commit,
    Commits,
    Condition,
    Queries,
    Query,
    SequenceLayout,
    valid_places,
    within,
)
from oar_core.models.detailflow.cache import GroupCache
from oar_core.models.detailflow.entry_layout import CONDITION, EntryLayout
from oar_core.models.gpt import ROTARY_BASE
from oar_core.nn.attention import KeyValueStore, SelfAttention, Uncached, additive_mask, compute_dtype
from oar_core.nn.block import Block
from oar_core.nn.embed import ConditionEmbedding
from oar_core.nn.kv_cache import KVCache
from oar_core.nn.norm import make_norm
from oar_core.nn.rope import BASE, RotaryTable
from oar_core.nn.tables import moved, starts_of

INIT_STD = 0.02


class DetailBackbone(Backbone):
    """A condition is a prompt or one class. Rotary angles are those of the token that an entry foretells, its group and
    its place in that, or where the config says so those that published networks have."""

    def __init__(self, config: DetailBackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.order_score = OrderScore()
        self.sequence = EntryLayout(config.groups)
        width, size = config.width, config.group_size
        self.embed_condition = ConditionEmbedding(config.condition_vocab, config.max_condition, width)
        self.embed_token = nn.Embedding(config.vocab_size, width)
        self.place = nn.Parameter(torch.empty(self.sequence.capacity + 1, width))  # of entries from 0 on
        self.pad = nn.Parameter(torch.empty(max(1, self.sequence.num_pads), width))
        grid, is_held = (config.num_tokens // size + 1, size), config.angles == HELD
        base = ROTARY_BASE if is_held else BASE
        self.rotary = RotaryTable(grid, config.head_width, base, is_nowhere_zero=is_held)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            Block(
                width,
                SelfAttention(width, config.num_heads),
                config.dropout,
                norm=config.norm,
                ffn_width=config.ffn_width,
            )
            for _ in range(config.num_layers)
        )
        self.norm = make_norm(config.norm, width)
        self.head = nn.Linear(width, config.vocab_size, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.trunc_normal_(module.weight, std=INIT_STD)
        for parameter in (self.place, self.pad):
            nn.init.trunc_normal_(parameter, std=INIT_STD)

    @property
    def spec(self) -> BackboneSpec:
        config = self.config
        return BackboneSpec(
            layout=SequenceLayout(config.groups.sizes),
            vocab_size=config.vocab_size,
            condition_vocab=config.condition_vocab,
            max_condition=config.max_condition,
            commits=Commits.GROUP,
            queries=Queries.NEXT,
        )

    def forward(
        self, condition: Condition, token_ids: Int[Tensor, "B L"], positions: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B L V"]:
        """Positions are those of the layout's order."""
        num_rows, num_condition = condition.ids.shape
        entries = np.arange(1, positions.shape[1])  # the last group is read by none
        on_device = torch.from_numpy(entries).to(token_ids.device)
        read = self._entries(token_ids, on_device, entries)
        x = torch.cat([self._condition(condition.ids), read], dim=1)
        nowhere = torch.full_like(condition.ids, self.rotary.nowhere)
        lengths = condition.lengths.to(x.device)
        if self.config.angles == HELD:
            angles = torch.cat([nowhere, (on_device - 1).expand(num_rows, -1)], dim=1)
        else:
            angles = torch.cat([nowhere, on_device.expand(num_rows, -1)], dim=1)
            angles[torch.arange(num_rows, device=x.device), lengths - 1] = 0  # this one foretells the first token
        mask = additive_mask(self._training_mask(lengths, num_condition, entries), compute_dtype(self.head.weight))
        states = self._trunk(self.dropout(x), angles, Uncached(mask[:, None]))
        first = states[torch.arange(num_rows, device=x.device), lengths - 1]
        return self.head(torch.cat([first[:, None], states[:, num_condition:]], dim=1))

    def new_cache(self, num_slots: int) -> GroupCache:
        """An empty cache on the weights' device and in their dtype; on a CPU in fp32, which is faster for attention."""
        config, weight = self.config, self.place
        cache = KVCache.allocate(
            num_layers=config.num_layers,
            num_slots=num_slots,
            num_heads=config.num_heads,
            capacity=config.max_condition + self.sequence.capacity,
            head_width=config.head_width,
            dtype=torch.float32 if weight.device.type == "cpu" else weight.dtype,
            device=weight.device,
        )
        return GroupCache.of(cache, config.group_size, config.width, weight.dtype)

    @torch.no_grad()
    def prefill(self, cache: KVCache, slots: Int[Tensor, "B"], condition: Condition, known: Commit) -> None:
        assert isinstance(cache, GroupCache), "a cache of another family"
        cache.reset(slots)
        cache.conditions[slots.cpu()] = condition.lengths
        valid = within(condition.lengths, condition.ids.shape[1])
        x = self._condition(condition.ids).flatten(0, 1)[valid_places(valid, cache.keys.device)]
        self._extend(cache, slots, known, condition.lengths, x)

    @torch.no_grad()
    def step(self, cache: KVCache, slots: Int[Tensor, "B"], commit: Commit, query: Query) -> Float[Tensor, "M V"]:
        """Commits whole groups, then says what comes next in the rows that ask for tokens of the next group."""
        assert isinstance(cache, GroupCache), "a cache of another family"
        if commit.counts.any():
            self._extend(cache, slots, commit, torch.zeros_like(commit.counts), self.place[:0])
        owners = torch.repeat_interleave(slots.cpu(), torch.tensor(query.counts)).to(cache.last.device)
        return self.head(cache.last[owners, query.positions % self.config.group_size])

    def _extend(
        self,
        cache: GroupCache,
        slots: Int[Tensor, "B"],
        commit: Commit,
        conditions: Int[Tensor, "B"],
        condition: Float[Tensor, "C D"],
    ) -> None:
        """Takes in rows of new condition tokens, which are embedded already, and of groups of tokens behind them."""
        rows = slots.cpu().numpy()
        held = cache.lengths.numpy()[rows] - cache.conditions.numpy()[rows]
        added = self.sequence.added(conditions.numpy(), held, commit.counts.numpy())
        x = self._laid_out(added.entries, commit, condition, cache.keys.device)
        foretells, angles = self._foretold(added.entries, added.counts, conditions.numpy())
        turned, kept, owners, places = moved([angles, *self._latest(foretells, added.counts, rows)], cache.keys.device)
        states = self._trunk(x, turned, cache.extend(slots, added.counts.tolist(), added.seen))
        cache.last[owners, places] = states[kept].to(cache.last.dtype)

    def _laid_out(
        self, entries: Int[np.ndarray, "M"], commit: Commit, condition: Float[Tensor, "C D"], device: torch.device
    ) -> Float[Tensor, "M D"]:
        """Embedded conditions, tokens and pads, in the order of the entries."""
        is_condition, is_pad = entries == CONDITION, self.sequence.is_pad(entries)
        is_token = ~is_condition & ~is_pad
        of_condition, of_pads, of_tokens, numbers, pads = moved(
            [
                np.flatnonzero(is_condition),
                np.flatnonzero(is_pad),
                np.flatnonzero(is_token),
                entries[is_token],
                entries[is_pad],
            ],
            device,
        )
        token_ids = commit.token_ids.flatten()[valid_places(commit.valid, device)]
        x = self.place.new_zeros(len(entries), self.config.width)
        x[of_condition] = condition.to(x.dtype)
        x[of_tokens] = self.embed_token(token_ids) + self.place[numbers]
        x[of_pads] = self.pad[pads - self.sequence.pads_behind - 1] + self.place[pads]
        return x

    def _foretold(
        self, entries: Int[np.ndarray, "M"], counts: Int[np.ndarray, "B"], conditions: Int[np.ndarray, "B"]
    ) -> tuple[Int[np.ndarray, "M"], Int[np.ndarray, "M"]]:
        """The token that each entry foretells (CONDITION: none), and where its angles stand in their table."""
        foretells = entries.copy()
        has_condition = conditions > 0
        foretells[(starts_of(counts) + conditions - 1)[has_condition]] = 0
        turned = entries - 1 if self.config.angles == HELD else foretells
        is_nowhere = (entries if self.config.angles == HELD else foretells) == CONDITION
        return foretells, np.where(is_nowhere, self.rotary.nowhere, turned)

    def _latest(
        self, foretells: Int[np.ndarray, "M"], counts: Int[np.ndarray, "B"], rows: Int[np.ndarray, "B"]
    ) -> tuple[Int[np.ndarray, "K"], Int[np.ndarray, "K"], Int[np.ndarray, "K"]]:
        """The new entries that foretell tokens of their row's latest group: their number, slot, and place in it."""
        size, has_new = self.config.group_size, counts > 0
        latest = np.zeros(len(counts), dtype=np.int64)
        latest[has_new] = foretells[counts.cumsum()[has_new] - 1] // size
        kept = np.flatnonzero((foretells // size == np.repeat(latest, counts)) & (foretells != CONDITION))
        return kept, np.repeat(rows, counts)[kept], foretells[kept] % size

    def _trunk(
        self, x: Float[Tensor, "*S D"], angles: Int[Tensor, "*S"], store: KeyValueStore
    ) -> Float[Tensor, "*S D"]:
        rotation = self.rotary(angles, compute_dtype(self.head.weight))
        for layer, block in enumerate(self.blocks):
            x = block(x, rotation, layer, store)
        return self.norm(x)

    def _condition(self, ids: Int[Tensor, "B P"]) -> Float[Tensor, "B P D"]:
        return self.embed_condition(ids) + self.place[0]

    def _entries(
        self, token_ids: Int[Tensor, "B L"], entries: Int[Tensor, "E"], on_host: Int[np.ndarray, "E"]
    ) -> Float[Tensor, "B E D"]:
        """Embedded entries of whole sequences, all of the same ones."""
        is_pad = self.sequence.is_pad(on_host)
        tokens = torch.from_numpy(np.where(is_pad, 0, self.sequence.token_of(on_host))).to(token_ids.device)
        pads = torch.from_numpy(np.where(is_pad, on_host - self.sequence.pads_behind - 1, 0)).to(token_ids.device)
        pad = torch.from_numpy(is_pad).to(token_ids.device)[:, None]
        return torch.where(pad, self.pad[pads], self.embed_token(token_ids[:, tokens])) + self.place[entries]

    def _training_mask(
        self, lengths: Int[Tensor, "B"], num_condition: int, entries: Int[np.ndarray, "E"]
    ) -> Bool[Tensor, "B S S"]:
        """Of `[condition ; entries]`: a condition's tokens see all of it, an entry those up to its last one seen."""
        size, device = num_condition + len(entries), lengths.device
        last_seen = torch.from_numpy(self.sequence.last_seen(entries)).to(device)
        visible = torch.zeros(size, size, dtype=torch.bool, device=device)
        visible[:, :num_condition] = True
        numbers = torch.from_numpy(entries).to(device)
        visible[num_condition:, num_condition:] = numbers <= last_seen[:, None]
        if self.sequence.pads_behind == 0:
            visible[:num_condition, num_condition : num_condition + self.sequence.num_pads] = True
        places = torch.arange(size, device=device)
        is_there = (places < lengths[:, None]) | (places >= num_condition)
        return visible & is_there[:, None]
