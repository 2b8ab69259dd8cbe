"""The RandAR network: before each token stands an instruction, which says the position that the token is for.

A sequence is `[class] [instruction, token] [instruction, token] ...` in decode order, strictly causal, and the code at
a position is read at its instruction.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from oar_core.models.base import BackboneSpec, Commit, Condition, GridLayout, Queries, Query, valid_places
from oar_core.models.gpt import Gpt, GptConfig
from oar_core.models.ordered import Memory, TrainingPass, TrunkBackbone
from oar_core.models.randar.cache import NONE, InstructedCache
from oar_core.models.randar.groups import randar_groups
from oar_core.nn.attention import KeyValueStore, Uncached, additive_mask
from oar_core.nn.beside import Recording
from oar_core.nn.initial import INIT_STD, draw_weights
from oar_core.nn.kv_cache import KVCache
from oar_core.nn.rope import Rotation, neighboured, rotate
from oar_core.nn.tables import moved, offsets_within, starts_of


class RandarBackbone(TrunkBackbone):
    """A condition is one class; the unconditional one is the last.

    The instructions of a step follow each other without tokens between them, so a logit depends on the positions that
    come before it in its step. Once their tokens are drawn, they are computed again in their final places: what is
    committed does not tell how it was grouped.
    """

    def __init__(self, config: GptConfig) -> None:
        super().__init__(config)
        self.config = config
        self.embed_class = nn.Embedding(config.num_classes + 1, config.width)
        self.instruction = nn.Parameter(torch.empty(config.width))  # rotary pairs half a head apart
        self.gpt = Gpt(config)
        draw_weights(self)
        nn.init.trunc_normal_(self.instruction, std=INIT_STD)

    @property
    def spec(self) -> BackboneSpec:
        config = self.config
        return BackboneSpec(
            layout=GridLayout(*config.grid),
            vocab_size=config.vocab_size,
            condition_vocab=config.num_classes + 1,
            max_condition=1,
            queries=Queries.EARLIER,
            published_groups=randar_groups,
        )

    def forward(
        self, condition: Condition, token_ids: Int[Tensor, "B L"], positions: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B L V"]:
        return self._forward(condition, token_ids, positions, Uncached(_training_mask(positions, self.gpt.dtype)))

    def read(self, condition: Condition, token_ids: Int[Tensor, "B L"], positions: Int[Tensor, "B L"]) -> TrainingPass:
        store = Recording(_training_mask(positions, self.gpt.dtype))
        logits = self._forward(condition, token_ids, positions, store)
        # The question of rank i sees the class and i pairs; the last pair is seen by none.
        length = positions.shape[1]
        keys, values = ([table[:, :, :-2] for table in tables] for tables in (store.keys, store.values))
        entries = torch.arange(2 * length - 1, device=positions.device)
        ranks = torch.arange(length, device=positions.device)
        mask = additive_mask(entries <= 2 * ranks[:, None], store.mask.dtype).expand(len(positions), 1, -1, -1)
        return TrainingPass(logits, Memory(keys, values, mask))

    def _forward(
        self, condition: Condition, token_ids: Int[Tensor, "B L"], positions: Int[Tensor, "B L"], store: KeyValueStore
    ) -> Float[Tensor, "B L V"]:
        pairs = torch.stack([self.instructions(positions), self.gpt.embed_token(token_ids)], dim=2)
        x = torch.cat([self.embed_class(condition.ids), pairs.flatten(1, 2)], dim=1)
        nowhere = torch.full_like(condition.ids, self.gpt.nowhere)
        places = torch.cat([nowhere, positions.repeat_interleave(2, dim=1)], dim=1)
        return self.gpt.head(self.gpt(x, places, store)[:, 1::2])

    def ask(self, positions: Int[Tensor, "*S"], store: KeyValueStore) -> Float[Tensor, "*S V"]:
        return self.gpt.head(self.gpt(self.instructions(positions), positions, store))

    def query_rotation(self, positions: Int[Tensor, "*S"], dtype: torch.dtype) -> Rotation:
        return self.gpt.rotary(positions, dtype)

    def committed_only(self, cache: KVCache, slots: Int[Tensor, "B"]) -> AbstractContextManager[None]:
        return _without_questions(cache, slots)

    def new_cache(self, num_slots: int) -> InstructedCache:
        """An empty cache; each position has two entries."""
        return InstructedCache.of(self.gpt.new_cache(num_slots, 1 + 2 * self.config.num_tokens))

    @torch.no_grad()
    def prefill(self, cache: KVCache, slots: Int[Tensor, "B"], condition: Condition, known: Commit) -> None:
        cache.reset(slots)
        nowhere = torch.full_like(condition.ids, self.gpt.nowhere).flatten()
        window = cache.extend(slots, [1] * len(slots))
        self.gpt(self.embed_class(condition.ids).flatten(0, 1), nowhere, window)
        self.step(cache, slots, known, Query(known.positions.flatten()[:0], (0,) * len(slots)))

    @torch.no_grad()
    def step(self, cache: KVCache, slots: Int[Tensor, "B"], commit: Commit, query: Query) -> Float[Tensor, "M V"]:
        """Tokens, each behind its instruction, and then what is asked go through the network together.

        The first question of a row stays in the cache, for its token may follow. Where one stays already and nothing is
        committed, the row is left as it was.
        """
        assert isinstance(cache, InstructedCache), "a cache of another family"
        committed, asked = commit.counts.numpy(), np.asarray(query.counts, dtype=np.int64)
        if not (committed + asked).any():
            return self.instruction.new_empty(0, self.config.vocab_size, dtype=self.gpt.dtype)
        rows = slots.cpu().numpy()
        is_aside = (committed == 0) & (asked > 0) & (cache.asked.numpy()[rows] != NONE)
        aside = cache.set_aside(rows[is_aside]) if is_aside.any() else None
        kept = _take_asked(cache, rows, commit)
        x, positions, answers = _listed(self, commit, query, kept)
        window = cache.extend(slots, (2 * committed + asked - kept).tolist())
        states = self.gpt(x, positions, window)
        stays = (asked > 0) & ~is_aside
        cache.forget(slots, (asked - stays).tolist())
        if stays.any():
            cache.asked.numpy()[rows[stays]] = query.positions.cpu().numpy()[starts_of(asked)[stays]]
        if aside is not None:
            cache.put_back(aside)
        return self.gpt.head(states[answers])

    def instructions(self, positions: Int[Tensor, "*S"]) -> Float[Tensor, "*S D"]:
        """One vector for all positions, turned by the angles of each."""
        heads = self.instruction.float().view(self.config.num_heads, -1).expand(*positions.shape, -1, -1)
        turned = rotate(heads, self.gpt.rotary(positions, torch.float32))
        return neighboured(turned).flatten(-2).to(self.instruction.dtype)


def _listed(
    network: RandarBackbone, commit: Commit, query: Query, kept: Int[np.ndarray, "B"]
) -> tuple[Float[Tensor, "T D"], Int[Tensor, "T"], Int[Tensor, "M"]]:
    """Lists what the rows feed, row after row, with its positions; and the places of the questions."""
    places = valid_places(commit.valid, query.positions.device)
    token_ids, positions = (table.flatten()[places] for table in (commit.token_ids, commit.positions))
    every = torch.cat([positions, query.positions])
    listed = torch.cat([network.gpt.embed_token(token_ids), network.instructions(every)])
    asked = np.asarray(query.counts, dtype=np.int64)
    order, answers = moved(_laid_out(commit.counts.numpy(), asked, kept), every.device)
    return listed[order], torch.cat([positions, every])[order], answers


def _training_mask(positions: Int[Tensor, "B L"], dtype: torch.dtype) -> Float[Tensor, "B 1 S S"]:
    batch, size = len(positions), 1 + 2 * positions.shape[1]
    causal = torch.ones(size, size, dtype=torch.bool, device=positions.device).tril()
    return additive_mask(causal, dtype).expand(batch, 1, -1, -1)


@contextmanager
def _without_questions(cache: KVCache, slots: Int[Tensor, "B"]) -> Iterator[None]:
    """Takes the instructions that wait for their tokens out of these slots for a while."""
    assert isinstance(cache, InstructedCache), "a cache of another family"
    rows = slots.cpu().numpy()
    waiting = rows[cache.asked.numpy()[rows] != NONE]
    aside = cache.set_aside(waiting) if len(waiting) else None
    yield
    if aside is not None:
        cache.put_back(aside)


def _take_asked(cache: InstructedCache, rows: Int[np.ndarray, "B"], commit: Commit) -> Int[np.ndarray, "B"]:
    """Marks rows that have the instruction of their first token already, by 0 or 1."""
    kept = np.zeros_like(rows)
    has_new = commit.counts.numpy() > 0
    if has_new.any():
        firsts = commit.positions[:, 0].cpu().numpy()
        kept[has_new] = cache.take_asked(rows[has_new], firsts[has_new])
    return kept


def _laid_out(
    committed: Int[np.ndarray, "B"], asked: Int[np.ndarray, "B"], kept: Int[np.ndarray, "B"]
) -> list[Int[np.ndarray, "_"]]:
    """Places, in a list of all tokens, instructions and questions, of what each row feeds, row after row; and
    where the questions are in that. `kept` rows have the instruction of their first token already."""
    num_tokens = int(committed.sum())
    counts = 2 * committed + asked
    offsets = offsets_within(counts)
    row = np.repeat(np.arange(len(counts)), counts)
    is_question = offsets >= 2 * committed[row]
    ranks = starts_of(committed)[row] + offsets // 2
    questions = 2 * num_tokens + starts_of(asked)[row] + offsets - 2 * committed[row]
    sources = np.where(is_question, questions, np.where(offsets % 2 == 0, num_tokens + ranks, ranks))
    is_fed = (offsets > 0) | (kept[row] == 0)
    return [sources[is_fed], np.flatnonzero(is_question[is_fed])]
