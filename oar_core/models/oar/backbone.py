"""The native backbone: a decoupled any-order transformer (kin of ARPG, arXiv 2503.10568).

A context stack reads the condition and the committed tokens, in decode order, and leaves one shared memory of keys and
values. A query stack looks at that memory from any position and predicts the token there. Queries are never cached and
never see each other, so asking about a position costs nothing that lasts.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from oar_core.config import BackboneConfig
from oar_core.models.base import BackboneSpec, Commit, Commits, Condition, GridLayout, Query, valid_places, within
from oar_core.models.ordered import Memory, OrderedBackbone, TrainingPass
from oar_core.models.seen import listed_seen, seen_after
from oar_core.nn.attention import (
    CrossAttention,
    DenseMemory,
    KeyValueStore,
    SelfAttention,
    SharedMemory,
    Uncached,
    additive_mask,
    compute_dtype,
)
from oar_core.nn.block import Block
from oar_core.nn.embed import ConditionEmbedding, QueryEmbedding, TokenEmbedding
from oar_core.nn.initial import INIT_STD, draw_weights
from oar_core.nn.kv_cache import CachedMemory, FixedWindow, KVCache, Window
from oar_core.nn.norm import make_norm
from oar_core.nn.rope import RotaryTable, Rotation, rotate


class ContextStack(nn.Module):
    """Turns the condition and the committed tokens into the shared memory."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.blocks = nn.ModuleList(
            _block(config, SelfAttention(config.width, config.num_heads)) for _ in range(config.num_context_layers)
        )
        self.norm = make_norm(config.norm, config.width)
        self.memory = nn.Linear(config.width, 2 * config.width, bias=False)

    def forward(
        self, x: Float[Tensor, "*S D"], rotation: Rotation, store: KeyValueStore
    ) -> tuple[Float[Tensor, "*S N H"], Float[Tensor, "*S N H"]]:
        """The tokens' keys and values in the shared memory."""
        for layer, block in enumerate(self.blocks):
            x = block(x, rotation, layer, store)
        keys, values = self.memory(self.norm(x)).unflatten(-1, (2, self.num_heads, -1)).unbind(-3)
        return rotate(keys, rotation), values


class QueryStack(nn.Module):
    """Predicts the tokens at queried positions from the shared memory."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            _block(config, CrossAttention(config.width, config.num_heads)) for _ in range(config.num_query_layers)
        )
        self.norm = make_norm(config.norm, config.width)
        self.head = nn.Linear(config.width, config.vocab_size, bias=False)

    def forward(self, x: Float[Tensor, "*S D"], rotation: Rotation, memory: SharedMemory) -> Float[Tensor, "*S V"]:
        for block in self.blocks:
            x = block(x, rotation, memory)
        return self.head(self.norm(x))


class OarBackbone(OrderedBackbone):
    """Context stack and query stack with their embeddings; keeps the `Backbone` contract.

    Every condition has at least one token (the unconditional one is a token too), so that a query always sees a key.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__(config)
        self.config = config
        has_table = config.has_place_tables
        self.embed_condition = ConditionEmbedding(
            config.condition_vocab, config.max_condition, config.width, has_table=has_table
        )
        self.embed_token = TokenEmbedding(config.vocab_size, config.num_tokens, config.width, has_table=has_table)
        self.embed_query = QueryEmbedding(config.num_tokens, config.width, has_table=has_table)
        self.rotary = RotaryTable(
            config.grid, config.head_width, config.rotary_base, is_nowhere_zero=not config.has_condition_keys
        )
        self.context = ContextStack(config)
        self.query = QueryStack(config)
        _initialise(self)

    @property
    def spec(self) -> BackboneSpec:
        config = self.config
        commits = Commits.GROUP if config.has_mutual_commits else Commits.CAUSAL
        return BackboneSpec(
            GridLayout(*config.grid), config.vocab_size, config.condition_vocab, config.max_condition, commits
        )

    def read(self, condition: Condition, token_ids: Int[Tensor, "B L"], positions: Int[Tensor, "B L"]) -> TrainingPass:
        """`logits[:, i]` predicts the token at `positions[:, i]` from the condition and the tokens of rank below i. The
        last token of each row is never read."""
        memory = self.remember(condition, token_ids, positions)
        return TrainingPass(self._answer(positions, memory, memory.mask), memory)

    def remember(self, condition: Condition, token_ids: Int[Tensor, "B L"], positions: Int[Tensor, "B L"]) -> Memory:
        """The first half of `read`: the context stack, which leaves one layer."""
        num_condition, num_context = condition.ids.shape[1], positions.shape[1] - 1
        dtype = compute_dtype(self.embed_query.shared)
        context_mask, query_mask = training_masks(
            condition.lengths.to(positions.device), num_condition, num_context, dtype
        )
        x = torch.cat(
            [self.embed_condition(condition.ids), self.embed_token(token_ids[:, :-1], positions[:, :-1])], dim=1
        )
        # The condition does not turn.
        nowhere = positions.new_full((positions.shape[0], num_condition), self.rotary.nowhere)
        rotation = self.rotary(torch.cat([nowhere, positions], dim=1), dtype)
        keys, values = self.context(x, rotation.slice(0, num_condition + num_context), Uncached(context_mask))
        return Memory([keys.transpose(1, 2)], [values.transpose(1, 2)], query_mask)

    def ask_at(
        self, memory: Memory, positions: Int[Tensor, "B L"], ranks: Int[Tensor, "B K"]
    ) -> Float[Tensor, "B K L V"]:
        num_ranks, length = ranks.shape[1], positions.shape[1]
        mask = memory.rows_of(ranks).repeat_interleave(length, dim=1)[:, None]
        return self._answer(positions.repeat(1, num_ranks), memory, mask).unflatten(1, (num_ranks, length))

    def _answer(
        self, positions: Int[Tensor, "B G"], memory: Memory, mask: Float[Tensor, "B 1 G T"]
    ) -> Float[Tensor, "B G V"]:
        """The second half of `read`: the query stack."""
        keys, values = memory.keys[-1], memory.values[-1]
        rotation = self.query_rotation(positions, compute_dtype(self.embed_query.shared))
        return self.query(self.embed_query(positions), rotation, DenseMemory(keys, values, mask))

    def new_cache(self, num_slots: int) -> KVCache:
        return KVCache.beside(
            self.embed_query.shared,
            num_layers=self.config.num_context_layers + 1,  # the last is the shared memory
            num_slots=num_slots,
            num_heads=self.config.num_heads,
            capacity=self.config.max_cached,
            head_width=self.config.head_width,
        )

    @torch.no_grad()
    def prefill(self, cache: KVCache, slots: Int[Tensor, "B"], condition: Condition, known: Commit) -> None:
        """Resets the slots, then commits the condition and the known tokens, in one pass.

        Here and in `step`, `slots` and counts may stay on the host, pads of ids and positions are any valid ones, and
        no gradient is kept: the cache is written in place.
        """
        lengths = condition.lengths.tolist()
        assert min(lengths) > 0, "a condition has at least one token"
        cache.reset(slots)
        device = cache.keys.device
        counts = [length + added for length, added in zip(lengths, known.counts.tolist())]
        window = cache.extend(slots, counts, seen_after(lengths, known))
        num_condition = condition.ids.shape[1]
        valid = torch.cat([within(condition.lengths, num_condition), known.valid], dim=1)
        places = valid_places(valid, device)
        parts = [self.embed_condition(condition.ids), self.embed_token(known.token_ids, known.positions)]
        x = torch.cat(parts, dim=1).flatten(0, 1)[places]
        nowhere = known.positions.new_full((len(lengths), num_condition), self.rotary.nowhere)
        positions = torch.cat([nowhere, known.positions], dim=1).flatten()[places]
        self._commit(x, positions, window)

    @torch.no_grad()
    def step(self, cache: KVCache, slots: Int[Tensor, "B"], commit: Commit, query: Query) -> Float[Tensor, "M V"]:
        """Commits tokens, then predicts the queried positions; a query of no positions commits alone."""
        counts = commit.counts.tolist()
        if any(counts):
            window = cache.extend(slots, counts, listed_seen(commit))
            places = valid_places(commit.valid, cache.keys.device)
            token_ids, positions = commit.token_ids.flatten()[places], commit.positions.flatten()[places]
            self._commit(self.embed_token(token_ids, positions), positions, window)
        dtype = compute_dtype(self.embed_query.shared)
        if not len(query.positions):
            return torch.empty(0, self.config.vocab_size, dtype=dtype, device=cache.keys.device)
        memory = CachedMemory(cache.look(slots, query.counts), self.config.num_context_layers)
        return self.query(self.embed_query(query.positions), self.rotary(query.positions, dtype), memory)

    @torch.no_grad()
    def static_step(
        self,
        token_ids: Int[Tensor, "M"],
        positions: Int[Tensor, "M"],
        window: FixedWindow,
        queries: Int[Tensor, "Q"],
        memory: FixedWindow,
    ) -> Float[Tensor, "Q V"]:
        """`step` of fixed shape, without a look at what the tables hold."""
        self._commit(self.embed_token(token_ids, positions), positions, window)
        rotation = self.rotary(queries, compute_dtype(self.embed_query.shared))
        return self.query(self.embed_query(queries), rotation, CachedMemory(memory, self.config.num_context_layers))

    def query_rotation(self, positions: Int[Tensor, "*S"], dtype: torch.dtype) -> Rotation:
        return self.rotary(positions, dtype)

    def _commit(self, x: Float[Tensor, "M D"], positions: Int[Tensor, "M"], window: Window | FixedWindow) -> None:
        rotation = self.rotary(positions, compute_dtype(self.embed_query.shared))
        window.write(self.config.num_context_layers, *self.context(x, rotation, window))


def _initialise(network: OarBackbone) -> None:
    draw_weights(network)
    nn.init.trunc_normal_(network.embed_query.shared, std=INIT_STD)
    if network.embed_query.position is not None:
        nn.init.zeros_(network.embed_query.position.weight)
    for blocks in (network.context.blocks, network.query.blocks):
        _shrink_outputs(blocks)


def _block(config: BackboneConfig, attention: nn.Module) -> Block:
    return Block(config.width, attention, config.dropout, norm=config.norm, ffn_width=config.ffn_width)


def _shrink_outputs(blocks: nn.ModuleList) -> None:
    """Scales what each block adds, so that the residual stream's variance does not grow with depth (GPT-2)."""
    for block in blocks:
        assert isinstance(block, Block)
        assert isinstance(block.attention, SelfAttention | CrossAttention)
        for linear in (block.attention.out, block.feed_forward.down):
            nn.init.trunc_normal_(linear.weight, std=INIT_STD / (2 * len(blocks)) ** 0.5)


def training_masks(
    lengths: Int[Tensor, "B"], num_condition: int, num_context: int, dtype: torch.dtype
) -> tuple[Float[Tensor, "B 1 S S"], Float[Tensor, "B 1 L S"]]:
    """Additive masks over `[condition ; tokens]` of its own tokens and of the queries of ranks `0..num_context`.

    All see the row's whole condition; the token of rank i also sees ranks up to i, the query of rank i ranks below i.
    """
    batch, device = lengths.shape[0], lengths.device
    in_condition = torch.arange(num_condition, device=device) < lengths[:, None]
    ranks = torch.arange(num_context, device=device)
    # Rows: condition tokens at rank -1, then tokens of rank 0, 1, ...: the query of rank i sees what token i - 1 sees.
    rows = torch.arange(-num_condition, num_context, device=device)
    earlier = ranks <= rows[:, None]
    visible = torch.cat(
        [
            in_condition[:, None].expand(batch, rows.shape[0], num_condition),
            earlier.expand(batch, rows.shape[0], num_context),
        ],
        dim=2,
    )
    mask = additive_mask(visible, dtype)[:, None]
    # A condition token sees no rank, which is what the query of rank 0 sees.
    return mask, mask[:, :, num_condition - 1 :]
