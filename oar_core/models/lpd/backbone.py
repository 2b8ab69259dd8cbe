"""The LPD network: one causal trunk that reads committed tokens and answers mask tokens in the same pass."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from oar_core.models.base import (
    BackboneSpec,
    Commit,
    Commits,
    Condition,
    GridLayout,
    GuidanceShare,
    Queries,
    Query,
    valid_places,
    within,
)
from oar_core.models.lpd.config import LpdConfig
from oar_core.models.lpd.groups import lpd_groups
from oar_core.models.ordered import Memory, TrainingPass, TrunkBackbone
from oar_core.models.seen import group_mask, listed_seen, seen_after
from oar_core.nn.attention import KeyValueStore, Uncached, additive_mask, compute_dtype
from oar_core.nn.beside import Recording
from oar_core.nn.block import PlainBlock
from oar_core.nn.initial import INIT_STD, draw_weights
from oar_core.nn.kv_cache import KVCache, Window
from oar_core.nn.tables import moved, places_within, starts_of

EPS = 1e-6
EXPANSION = 4  # of the feed-forward layer


class LpdBackbone(TrunkBackbone):
    """Positions are told by a learned table alone. A condition is one class; the unconditional one is the last.

    The queries of a step see each other in every layer, so a logit depends on which positions share its step: no order
    that scores all remaining positions can be asked for.
    """

    def __init__(self, config: LpdConfig) -> None:
        super().__init__(config)
        self.config = config
        self.embed_class = nn.Embedding(config.num_classes + 1, config.width)
        self.embed_token = nn.Embedding(config.vocab_size, config.width)
        self.mask_token = nn.Parameter(torch.empty(config.width))
        self.place = nn.Parameter(torch.empty(config.num_tokens + 1, config.width))  # the first is the class's
        self.input_norm = nn.LayerNorm(config.width, eps=EPS)
        self.blocks = nn.ModuleList(
            PlainBlock(config.width, config.num_heads, EXPANSION, EPS) for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(config.width, eps=EPS)
        self.head = nn.Linear(config.width, config.vocab_size, bias=False)
        _initialise(self)

    @property
    def spec(self) -> BackboneSpec:
        config = self.config
        return BackboneSpec(
            layout=GridLayout(*config.grid),
            vocab_size=config.vocab_size,
            condition_vocab=config.num_classes + 1,
            max_condition=1,
            commits=Commits.GROUP,
            queries=Queries.GROUP,
            guidance_share=GuidanceShare.RANK,
            published_groups=lpd_groups,
        )

    def forward(
        self,
        condition: Condition,
        token_ids: Int[Tensor, "B L"],
        positions: Int[Tensor, "B L"],
        groups: Int[Tensor, "L"] | None = None,
    ) -> Float[Tensor, "B L V"]:
        """Training pass. `groups`: the step that decodes each rank; unless given, each has its own."""
        return self._forward(
            condition, token_ids, positions, Uncached(_additive_mask(positions, groups, self.mask_token))
        )

    def read(self, condition: Condition, token_ids: Int[Tensor, "B L"], positions: Int[Tensor, "B L"]) -> TrainingPass:
        length = positions.shape[1]
        store = Recording(_additive_mask(positions, None, self.mask_token))
        logits = self._forward(condition, token_ids, positions, store)
        # Of `[class ; tokens ; queries]` the class and all tokens but the last, which no query sees.
        keys, values = ([table[:, :, :length] for table in tables] for tables in (store.keys, store.values))
        return TrainingPass(logits, Memory(keys, values, store.mask[:, :, 1 + length :, :length]))

    def _forward(
        self, condition: Condition, token_ids: Int[Tensor, "B L"], positions: Int[Tensor, "B L"], store: KeyValueStore
    ) -> Float[Tensor, "B L V"]:
        tokens, queries = self._tokens(token_ids, positions), self._questions(positions)
        x = torch.cat([self.input_norm(self.embed_class(condition.ids) + self.place[0]), tokens, queries], dim=1)
        return self.head(self._trunk(x, store)[:, 1 + positions.shape[1] :])

    def ask(self, positions: Int[Tensor, "*S"], store: KeyValueStore) -> Float[Tensor, "*S V"]:
        """Positions are in what is embedded."""
        return self.head(self._trunk(self._questions(positions), store))

    def new_cache(self, num_slots: int) -> KVCache:
        config = self.config
        return KVCache.beside(
            self.mask_token,
            num_layers=config.num_layers,
            num_slots=num_slots,
            num_heads=config.num_heads,
            capacity=1 + config.num_tokens,
            head_width=config.head_width,
        )

    @torch.no_grad()
    def prefill(self, cache: KVCache, slots: Int[Tensor, "B"], condition: Condition, known: Commit) -> None:
        lengths = condition.lengths.tolist()
        cache.reset(slots)
        counts = [length + added for length, added in zip(lengths, known.counts.tolist())]
        window = cache.extend(slots, counts, seen_after(lengths, known))
        classes = self.input_norm(self.embed_class(condition.ids) + self.place[0])
        x = torch.cat([classes, self._tokens(known.token_ids, known.positions)], dim=1)
        valid = torch.cat([within(condition.lengths, condition.ids.shape[1]), known.valid], dim=1)
        self._trunk(x.flatten(0, 1)[valid_places(valid, x.device)], window)

    @torch.no_grad()
    def step(self, cache: KVCache, slots: Int[Tensor, "B"], commit: Commit, query: Query) -> Float[Tensor, "M V"]:
        """Tokens and queries go through the trunk together; what the queries leave in the cache is forgotten."""
        committed, asked = commit.counts.numpy(), np.asarray(query.counts, dtype=np.int64)
        if not (committed + asked).any():
            return self.mask_token.new_empty(0, self.config.vocab_size)
        window = cache.extend(slots, (committed + asked).tolist(), _seen(commit, asked))
        places = valid_places(commit.valid, cache.keys.device)
        tokens = self._tokens(commit.token_ids.flatten()[places], commit.positions.flatten()[places])
        listed = torch.cat([tokens, self._questions(query.positions)])
        # From tokens before queries to each row's tokens before its queries, and back.
        starts = starts_of(committed + asked)
        where = np.concatenate([places_within(starts, committed), places_within(starts + committed, asked)])
        order, answers = moved([np.argsort(where), where[int(committed.sum()) :]], cache.keys.device)
        x = self._trunk(listed[order], window)
        cache.forget(slots, query.counts)
        return self.head(x[answers])

    def _trunk(self, x: Float[Tensor, "*S D"], store: KeyValueStore | Window) -> Float[Tensor, "*S D"]:
        for layer, block in enumerate(self.blocks):
            x = block(x, layer, store)
        return self.norm(x)

    def _tokens(self, token_ids: Int[Tensor, "*S"], positions: Int[Tensor, "*S"]) -> Float[Tensor, "*S D"]:
        return self.input_norm(self.embed_token(token_ids) + self.place[positions + 1])

    def _questions(self, positions: Int[Tensor, "*S"]) -> Float[Tensor, "*S D"]:
        return self.input_norm(self.mask_token + self.place[positions + 1])


def _initialise(network: LpdBackbone) -> None:
    draw_weights(network)
    for parameter in (network.mask_token, network.place):
        nn.init.trunc_normal_(parameter, std=INIT_STD)


def _seen(commit: Commit, asked: Int[np.ndarray, "B"]) -> Int[np.ndarray, "M"]:
    """Counts what each row's tokens, then its queries, may see: tokens their group, queries all that is new."""
    committed = commit.counts.numpy()
    starts = starts_of(committed + asked)
    seen = np.repeat(committed + asked, committed + asked)
    tokens = places_within(starts, committed)
    listed = listed_seen(commit)
    seen[tokens] = places_within(np.ones_like(committed), committed) if listed is None else listed
    return seen


def _additive_mask(
    positions: Int[Tensor, "B L"], groups: Int[Tensor, "L"] | None, weight: Tensor
) -> Float[Tensor, "B 1 S S"]:
    """The training mask in the number format of a weight; unless groups are given, each rank has its own."""
    groups = torch.arange(positions.shape[1], device=positions.device) if groups is None else groups
    mask = additive_mask(group_mask(groups), compute_dtype(weight))
    return mask.expand(len(positions), 1, -1, -1)
